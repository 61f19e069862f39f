"""`make serve`: the example site with its data, left running to look at.

Everything stays in db.sqlite3, where manage.py finds it as well; delete that file to begin anew. `runserver` runs due
tasks by itself, and mail goes to an SMTP server of this process, which counts it.
"""

from __future__ import annotations

import os
import signal
import sys

from examples.processes import Process
from examples.sink import MailSink

DEFAULT_ADDRESS = "127.0.0.1:8000"


def tell(total: int) -> None:
    """Say now and then how many mails have arrived."""
    if total == 1 or total % 1000 == 0:
        print(f"mail server: {total} mail{'s' if total > 1 else ''} so far", flush=True)


def main(address: str = DEFAULT_ADDRESS) -> int:
    """Set up what is missing and serve until Ctrl-C; return the exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with MailSink(on_mail=tell) as sink:
        os.environ.update(
            DJANGO_SETTINGS_MODULE="settings_example",
            EMAIL_PORT=str(sink.port),
        )
        set_up()
        print(f"\nhttp://{address}/   log in as admin with the password admin   (Ctrl-C ends it)\n", flush=True)
        with Process("runserver", address) as server:
            try:
                return server.wait()
            except KeyboardInterrupt:
                return 0


def set_up() -> None:
    """Make the tables, the data and the admin, as far as they are not there."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from examples.email_students.models import Student
    from examples.gazetteer.models import City

    call_command("migrate", verbosity=0)
    if not Student.objects.exists():
        call_command("load_students")
    if not City.objects.exists():
        call_command("load_cities")
    if not get_user_model().objects.filter(username="admin").exists():
        get_user_model().objects.create_superuser("admin", "admin@example.org", "admin")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
