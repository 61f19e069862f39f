"""Fill a program with made-up students."""

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from examples.email_students.models import Program, Student

FIRST_NAMES = ("Ada", "Barbara", "Carol", "Dana", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Jean", "Kurt", "Lynn")
LAST_NAMES = ("Allen", "Bartik", "Clarke", "Dijkstra", "Goldberg", "Hopper", "Keller", "Lamarr", "Noether", "Turing")


class Command(BaseCommand):
    help = "Make a program and fill it with made-up students (those that it has are replaced)."

    def add_arguments(self, parser):
        """Add this command's options."""
        parser.add_argument("--count", type=int, default=10_000, help="how many students (default 10000)")
        parser.add_argument("--program", default="gsoc", help="slug of the program (default gsoc)")

    @transaction.atomic
    def handle(self, *, count, program, **options):
        """Load them in one transaction: all or none."""
        if count < 0:
            raise CommandError(f"--count must be 0 or more, not {count}.")
        row, _ = Program.objects.get_or_create(slug=program, defaults={"name": f"Summer of Code ({program})"})
        row.students.all().delete()
        students = (
            Student(
                program=row,
                name=f"{FIRST_NAMES[n % len(FIRST_NAMES)]} {LAST_NAMES[n // len(FIRST_NAMES) % len(LAST_NAMES)]}",
                email=f"student{n}@{program}.example.org",
            )
            for n in range(count)
        )
        Student.objects.bulk_create(students, batch_size=500)
        self.stdout.write(f"{count} students in the program {program!r}")
