"""Whether what a task does stands interruptions: it is run again and again, disturbed each time in another way.

First undisturbed, twice. Then interrupted at one moment after the other, as if the process was killed: what is open is
rolled back, the lease ends, the task is delivered again. Then with each delivery doubled, and in random orders, with
late copies. Each time it begins from the same, and must end the same.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import Manager, QuerySet

from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.conf import get_settings
from soc_tasks.errors import NotSupportedError
from soc_tasks.logic.deferred_iterations import defer_iteration_with_finalize
from soc_tasks.logic.held_back import connections_kept
from soc_tasks.logic.tasks import startTask
from soc_tasks.logic.urls import find_options
from soc_tasks.meta import read_meta
from soc_tasks.models import ShardRow
from soc_tasks.testing.beginnings import Beginning
from soc_tasks.testing.deliveries import has_failed, make_delivery, make_dispatcher
from soc_tasks.testing.end_states import MAIL, MOST_LINES, Reader
from soc_tasks.testing.moments import Moments, ProcessGoneError
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

#: Of what is drawn: the moments where there are too many, and the orders.
SEED: Final = 0
#: Random orders that are tried.
ORDERS: Final = 3
#: Failures of one task before it counts as one that fails for good.
MOST_FAILURES: Final = 10


class Resumability(NamedTuple):
    """What was tried.

    Attributes:
        moments: at how many an undisturbed run could be interrupted.
        interrupted: at how many of them one was.
    """

    moments: int
    interrupted: int


@dataclass
class Course:
    """One run: in which order, how often each delivery comes, what interrupts it, and how it went."""

    moments: Moments
    doubles: bool = False
    draw: random.Random | None = None
    failure: str = ""
    error: BaseException | None = None

    def take(self, tasks: list[Task]) -> Task:
        """Take the task that is delivered next."""
        return tasks.pop(0 if self.draw is None else self.draw.randrange(len(tasks)))


class Trial:
    """Runs what is started from the same beginning, as often as is asked for."""

    def __init__(self, backend: MemoryBackend, start: Callable[[], Any], reader: Reader, beginning: Beginning) -> None:
        self._backend = backend
        self._start = start
        self._reader = reader
        self._beginning = beginning
        self._dispatch = make_dispatcher()

    def run(self, course: Course) -> Any:
        """Run it, and return how it ended."""
        with self._beginning.run():
            self._start()
            with connections_kept():
                for task in self._tasks(course):
                    self._deliver(task, course)
            return self._reader.read()

    def _tasks(self, course: Course) -> Iterator[Task]:
        waiting: list[Task] = []
        copied: set[str] = set()
        while True:
            self._backend.collect()
            # What repeat_in starts would never end.
            waiting += [task for task in self._backend.tasks if not _repeats(task)]
            self._backend.tasks.clear()
            if not waiting or course.failure:
                return
            task = course.take(waiting)
            yield task
            if course.doubles:
                yield task
            if course.draw is not None and task.name not in copied:
                copied.add(task.name)
                waiting.append(task)

    def _deliver(self, task: Task, course: Course) -> None:
        failures, previous = 0, None
        while True:
            delivery = make_delivery(task, failures, previous)
            try:
                with course.moments.watched():
                    answer = self._dispatch(task, delivery)
            except ProcessGoneError:
                # It is gone, and comes again when its lease has ended; that counts as no attempt.
                self._backend.collect()
                _end_leases()
                continue
            self._backend.collect()
            if not has_failed(answer, delivery):
                return
            course.error = delivery.failures[-1] if delivery.failures else None
            failures, previous = failures + 1, answer.status
            dead = answer.outcome == "dead"
            if dead or failures == MOST_FAILURES:
                course.failure = (
                    f"task {task.name} ({task.path}) failed {'for good' if dead else f'{failures} times'}: "
                    f"{course.error!r}, answered with {answer.status}"
                )
                return
            if 200 <= answer.status < 300:
                return


def assert_resumable(
    backend: MemoryBackend,
    start: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    read_state: Callable[[], Any] | None,
    ignore: Iterable[str],
    interruptions: int,
) -> Resumability:
    """Fail unless what is started ends the same, however it is disturbed; see `TaskQueues.assert_resumable`."""
    if interruptions < 1:
        raise ValueError(f"interruptions is the most that are tried, 1 or more, not {interruptions}.")
    if get_settings().state != "django":
        raise NotSupportedError(
            "assert_resumable() begins again and again from the same rows, and compares those at the end; it cannot "
            f"where SOC_TASKS['STATE'] is {get_settings().state!r}. Set it to 'django' for this test."
        )
    name, starter = _make_starter(start, args, kwargs)
    beginning = Beginning(backend)
    reader = Reader(beginning, read_state, ignore)
    trial = Trial(backend, starter, reader, beginning)

    whole = Course(Moments())
    expected = trial.run(whole)
    if whole.failure:
        raise AssertionError(f"{name} fails where nothing disturbs it: {whole.failure}") from whole.error
    again = Course(Moments())
    if lines := _compare(reader, expected, trial.run(again), again):
        raise AssertionError(
            f"{name} ends differently when it is run again from the same beginning, undisturbed:{_list(lines)}\n"
            "It keeps something outside the database, as in a global or in a file, or depends on time or chance. Keep "
            "progress in the context, which commits with the place; name columns that are another each time in ignore."
        )
    count = whole.moments.count
    chosen = _choose(count, interruptions)
    for number in chosen:
        course = Course(Moments(number))
        lines = _compare(reader, expected, trial.run(course), course)
        if lines:
            where = f"interrupted {course.moments.name} (moment {number} of {count}"
            where += f"; {len(chosen)} of them are tried, by seed {SEED})" if len(chosen) < count else ")"
            raise AssertionError(_complain(name, where, lines, course.moments.atomic)) from course.error
    stepwise = {f"with its deliveries in random order, and late copies (seed {seed})": Course(
        Moments(in_steps=True), draw=random.Random(seed)) for seed in range(SEED, SEED + ORDERS)}  # fmt: skip
    for where, course in {
        "with each delivery doubled": Course(Moments(in_steps=True), doubles=True),
        **stepwise,
    }.items():
        if lines := _compare(reader, expected, trial.run(course), course):
            raise AssertionError(_complain(name, where, lines, course.moments.atomic)) from course.error
    logger.info("%s is resumable: interrupted at %d of %d moments, by seed %d", name, len(chosen), count, SEED)
    return Resumability(count, len(chosen))


def _make_starter(start: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Callable[[], Any]]:
    if isinstance(start, QuerySet | Manager):
        # Its options are taken out of what it is given.
        called = f" with {getattr(args[0], '__qualname__', args[0])!s:.100}" if args else ""
        return f"The iteration{called}", lambda: defer_iteration_with_finalize(start, *args, **dict(kwargs))
    name = start if isinstance(start, str) else getattr(start, "__qualname__", repr(start))
    if isinstance(start, str) or find_options(start) is not None:
        return name, lambda: startTask(start, *args, **kwargs)
    if not callable(start):
        raise TypeError(
            "assert_resumable() takes a task view, the name of its URL pattern, a queryset with callback and finalize, "
            f"or a function that starts something, not {start!r:.100}."
        )
    return name, lambda: start(*args, **kwargs)


def _choose(count: int, most: int) -> list[int]:
    """Return the moments to interrupt at: all, or the first, the last, and a sample of those between."""
    if count <= most:
        return list(range(1, count + 1))
    ends = [1, count][: max(1, most)]
    between = random.Random(SEED).sample(range(2, count), most - len(ends))
    return sorted({*ends, *between})


def _compare(reader: Reader, expected: Any, found: Any, course: Course) -> list[str]:
    lines = reader.compare(expected, found)
    return [course.failure, *lines] if course.failure else lines


def _list(lines: list[str]) -> str:
    more = len(lines) - MOST_LINES
    return "".join(f"\n  {line}" for line in lines[:MOST_LINES]) + (f"\n  and {more} more" if more > 0 else "")


def _complain(name: str, where: str, lines: list[str], atomic: bool | None) -> str:
    key = 'f"{request.task.iteration}:{entity.pk}"'
    if all(line.startswith(f"{MAIL} ") for line in lines):
        hint = (
            f"A mail cannot be taken back. Give it a key that stays the same, so that it can be told as a copy: {key} "
            "as its Message-ID; or start a task for each mail, from an atomic batch."
        )
    elif atomic is None:
        hint = "@task(atomic=True) has what it writes happen once; for what is elsewhere, send request.task.start_id."
    elif not atomic:
        hint = (
            "It is not atomic: a batch that is interrupted is done again. atomic=True (_atomic=True) has what a batch "
            f"writes and its place commit together; for what is not in the database, send a key: {key}."
        )
    else:
        hint = (
            "It is atomic, so this is kept where a rollback does not reach: in a global, in another database, in a "
            f"cache or a file. Keep progress in the context; for what is elsewhere, send a key: {key}."
        )
    return f"{name} does not end as it does undisturbed when it is {where}:{_list(lines)}\n{hint}"


def _repeats(task: Task) -> bool:
    meta = read_meta(task)
    return meta is not None and meta.repeat


def _end_leases() -> None:
    """Let the time pass until a shard is free whose worker is gone."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    ShardRow.objects.using(get_settings().database).exclude(owner="").update(until=past)
