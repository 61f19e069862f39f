"""Tables, users and students of the console's browser test: a program, to be run on its site's settings."""

from __future__ import annotations

POLICY = "default-src 'self'"
STUDENTS = 2000


def set_up():
    """Make tables, an admin, somebody who may only look, and students."""
    import django

    django.setup()
    from django.contrib.auth.models import Permission, User
    from django.core.management import call_command

    from examples.email_students.models import Program, Student

    call_command("migrate", verbosity=0)
    User.objects.create_superuser("admin", password="admin")
    viewer = User.objects.create_user("viewer", password="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_console"))
    program = Program.objects.create(slug="gsoc2009", name="Summer")
    Student.objects.bulk_create(
        Student(name=f"Student {number}", email=f"s{number}@example.org", program=program) for number in range(STUDENTS)
    )


if __name__ == "__main__":
    set_up()
