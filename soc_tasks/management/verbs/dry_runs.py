"""`tasks iterations --dry-run`: try an iteration, and print what it would do."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from soc_tasks.errors import SocTasksError
from soc_tasks.logic import payloads
from soc_tasks.logic.dry_run_reports import Report
from soc_tasks.logic.dry_runs import DryRun, DryRunError, Limits
from soc_tasks.logic.iterations import Iteration
from soc_tasks.management.verbs.printing import write_json

#: How much is tried unless it is said how much.
ROWS: Final = 1000
SECONDS: Final = 10.0

WARNING: Final = (
    "What the view does outside of this site's databases, mail and queues is really done: files, HTTP calls, other "
    "services, caches, threads and processes of its own."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of a dry run."""
    group = parser.add_argument_group("dry run", "Try an iteration in transactions that roll back.")
    group.add_argument(
        "--dry-run", metavar="TASK", dest="dry_run",
        help="what to try: a path with its arguments, the name of a URL pattern, or the id of an iteration that is "
        "there, which is tried from where it stands",
    )  # fmt: skip
    group.add_argument("--context", metavar="JSON", help="the task's context, an object; default: {}")
    group.add_argument("--queue", default="default", help="the queue that the task seems to come from")
    group.add_argument("--batches", type=int, help="end after so many batches")
    group.add_argument("--seconds", type=float, help=f"end after so many seconds of work (default: {SECONDS:g})")
    group.add_argument("--all", action="store_true", help="try all rows")
    group.add_argument("--yes", action="store_true", help="do not ask whether the view's other effects are harmless")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Try, and report.

    Raises:
        CommandError: there is nothing to try, an option is wrong, nobody agreed, or the view failed.
    """
    limits = _read_limits(options)
    context = _read_context(options["context"])
    iteration = find_iteration(options["dry_run"])
    if iteration is not None and context is not None:
        raise CommandError("An iteration that is there has its own context; leave --context out.")
    _ask(command, options)
    run = DryRun(limits, queue=options["queue"], progress=_make_progress(command))
    try:
        report = run.try_task(options["dry_run"], context) if iteration is None else run.try_iteration(iteration)
    except (SocTasksError, DryRunError, ValueError) as error:
        raise CommandError(str(error)) from error
    finally:
        _clear_progress(command)
    if options["json"]:
        write_json(command, report.as_dict())
    else:
        for line in describe(report):
            command.stdout.write(line)
    if report.failures:
        failure = report.failures[0]
        if options["verbosity"] > 1:
            command.stderr.write(failure.traceback)
        raise CommandError(f"The dry run failed at batch {failure.batch}: {failure.error}")


def find_iteration(target: str) -> str | None:
    """Return the id of the iteration that is meant, or None where a task is.

    Raises:
        CommandError: it has the form of an id, and there is no such iteration.
    """
    digits = target.lower()
    if len(digits) < 4 or set(digits) - set("0123456789abcdef"):
        return None
    found = [i.id for i in Iteration.all(limit=1000) if i.id.endswith(digits) or i.id.startswith(digits)]
    if len(found) > 1:
        raise CommandError(f"{len(found)} iterations have the id {target!r}; `tasks iterations` lists their whole ids.")
    if found:
        return found[0]
    # A name may look like one, short ones do.
    return digits if len(digits) == 32 else None


def _read_limits(options: dict[str, Any]) -> Limits:
    for name in ("limit", "batches", "seconds"):
        if options[name] is not None and not options[name] > 0:
            raise CommandError(f"--{name} must be above 0, not {options[name]}.")
    given = any(options[name] is not None for name in ("limit", "batches", "seconds"))
    if options["all"] and (options["limit"] is not None or options["batches"] is not None):
        raise CommandError("--all tries all rows; leave --limit and --batches out.")
    if options["all"]:
        return Limits(seconds=options["seconds"])
    if given:
        return Limits(rows=options["limit"], batches=options["batches"], seconds=options["seconds"])
    return Limits(rows=ROWS, seconds=SECONDS)


def _read_context(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        context = payloads.loads(text)
    except SocTasksError as error:
        raise CommandError(f"--context is no JSON: {error}") from error
    if not isinstance(context, dict):
        raise CommandError('--context must be an object, as in --context \'{"subject": "Hello"}\'.')
    return context


def _ask(command: BaseCommand, options: dict[str, Any]) -> None:
    if options["yes"]:
        return
    command.stderr.write(command.style.WARNING(WARNING))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("If that does no harm, say so with --yes.")
    command.stderr.write("Try it? [y/N] ", ending="")
    if input().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was tried.")


def _make_progress(command: BaseCommand) -> Any:
    if not command.stderr.isatty():
        return None

    def show(report: Report) -> None:
        of = "" if report.total is None else f" of {report.total:,}"
        command.stderr.write(
            f"\r{report.rows:,}{of} rows, {report.batches:,} batches, {report.seconds:.1f} s", ending=""
        )

    return show


def _clear_progress(command: BaseCommand) -> None:
    if command.stderr.isatty():
        command.stderr.write("\r\033[K", ending="")


def describe(report: Report) -> Iterator[str]:
    """Yield the lines that tell of a dry run."""
    yield f"Dry run of {report.name} ({report.path}): nothing of it is kept in the databases, but for numbers that"
    yield "sequences have given out. Mails and tasks were held back."
    yield f"Not held back: {WARNING[0].lower()}{WARNING[1:]}"
    yield ""
    for name, value in _lines(report):
        yield f"{name:<11} {value}"


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    total = "" if report.total is None else f" of {report.total:,}"
    before = f", after {report.done_before:,} that were done" if report.done_before else ""
    yield "rows", f"{report.rows:,}{total}{before}"
    stopped = f" (ended by the limit of {report.stopped_at})" if report.stopped_at else ""
    yield "batches", f"{report.batches:,}{stopped}" + (", each with its place in one transaction" * report.atomic)
    each = f", {1000 * report.seconds / report.rows:.2f} ms a row" if report.rows else ""
    yield "time", f"{report.seconds:.2f} s{each}, without commits and the queue's part"
    yield "projected", _project(report)
    average = report.queries / report.batches if report.batches else 0.0
    reads = report.reads / report.batches if report.batches else 0.0
    yield (
        "queries",
        f"{report.queries:,}; {average:.1f} a batch ({reads:.1f} to fetch it), {report.most_queries:,} at most",
    )
    yield from _table("writes", _writes(report), "none")
    mails = [f"{report.mails:,} to {report.recipients:,} recipients"] if report.mails else []
    mails += [f"  {count:>7,}  {subject:.80}" for subject, count in report.subjects.most_common(10)]
    if len(report.subjects) > 10:
        mails.append(f"  {'':>7}  … and {len(report.subjects) - 10} subjects more")
    yield from _table("mails", mails, "none")
    tasks = [f"{count:>7,}  {what}  (queue {queue})" for (what, queue), count in report.tasks.most_common(20)]
    yield from _table("tasks", tasks, "none")
    hooks = [f"{count:>7,}  {name}  (not called)" for name, count in report.hooks.most_common(20)]
    yield from _table("on commit", hooks, "none")
    if report.finalize:
        yield "finalize", f"{report.finalize} (not run)"
    for failure in report.failures:
        where = f"{failure.entities}, " if failure.entities else ""
        yield "FAILED", f"{where}batch {failure.batch} of the dry run, in shard {failure.shard}: {failure.error}"
        if failure.hint:
            yield "", failure.hint


def _project(report: Report) -> str:
    if report.projected is None:
        return "unknown: " + ("the logic cannot tell how many rows there are" if report.rows else "no rows were done")
    text = f"{_show_time(report.projected)} for {report.left:,} rows, one batch after the other"
    if report.shards > 1:
        text += f"; {_show_time(report.projected / report.shards)} in {report.shards} shards side by side, at best"
    return text


def _show_time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _writes(report: Report) -> list[str]:
    if not report.writes:
        return []
    widths = [max(len(key[place]) for key in report.writes) for place in range(3)]
    lines = []
    for key in sorted(report.writes):
        names = "  ".join(part.ljust(width) for part, width in zip(key, widths, strict=True))
        rows, statements = report.rows_written.get(key, 0), report.writes[key]
        lines.append(f"{names}  {rows:>9,} rows in {statements:,} statements")
    return lines


def _table(name: str, lines: list[str], nothing: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines or [nothing]):
        yield "" if number else name, line
