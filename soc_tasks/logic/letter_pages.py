"""Dead letters by the hundred thousand: pages of them, and what is done to all that match, some at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db import Error

from soc_tasks.backends import get_backend
from soc_tasks.errors import SocTasksError
from soc_tasks.logic.letters import LetterNotFoundError, discard_letters, name_work, renew_task, retry_letter
from soc_tasks.meta import read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter

#: Where counting stops: so many, or more.
CAP: Final = 10_000
#: Letters that one page, or one count, looks through for a text.
LOOK_AT: Final = 2000
_PAGE: Final = 250
#: Letters of one transaction.
BATCH: Final = 50
#: Errors that are told; the others are counted.
MOST_ERRORS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters are meant; "" takes any, but `error_type` is None for that.

    Args:
        queue: name of a queue.
        error_type: class of the error.
        text: a part of path, function or error, in whatever case.
        sees_errors: whether it is looked for in the errors' messages, too, and not in their classes alone.
    """

    queue: str = ""
    error_type: str | None = None
    text: str = ""
    sees_errors: bool = True

    @property
    def searches(self) -> bool:
        """Tell whether letters have to be looked through one by one."""
        return bool(self.text or (self.queue and self.error_type is not None))

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether a letter is meant."""
        if self.queue and letter.task.queue != self.queue:
            return False
        if self.error_type is not None and letter.error_type != self.error_type:
            return False
        if not self.text:
            return True
        parts = (letter.task.path, name_work(letter), letter.error_type, letter.error if self.sees_errors else "")
        return any(self.text.casefold() in part.casefold() for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPage:
    """Some dead letters, newest first.

    Args:
        letters: the letters.
        next: the next page holds those before this id; None: there is none.
        looked_at: how many were looked through.
    """

    letters: Sequence[DeadLetter]
    next: int | None
    looked_at: int


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was done to dead letters.

    Args:
        done: how many were retried or discarded.
        gone: how many were gone already.
        failed: how many could not be.
        errors: why not, of the first of them.
        next: what is left begins before this id; None: nothing is left.
    """

    done: int = 0
    gone: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    next: int | None = None

    def note(self, error: Exception) -> None:
        """Count one that could not be."""
        self.failed += 1
        if len(self.errors) < MOST_ERRORS and str(error) not in self.errors:
            self.errors.append(str(error))


def find_page(wanted: LetterFilter, *, before: int | None = None, limit: int = 50) -> LetterPage:
    """Return dead letters; for a text, so many are looked through that it never takes long.

    Args:
        wanted: which ones.
        before: `next` of the page before.
        limit: how many at most.
    """
    state = get_state()
    found: list[DeadLetter] = []
    looked, size = 0, _PAGE if wanted.searches else limit + 1
    # An index serves one of both.
    queue = wanted.queue or None if wanted.error_type is None else None
    while looked < LOOK_AT:
        page = state.list_dead_letters(queue=queue, error_type=wanted.error_type, limit=size, before=before)
        for letter in page:
            if len(found) == limit:
                return LetterPage(letters=found, next=before, looked_at=looked)
            looked, before = looked + 1, letter.id
            if wanted.matches(letter):
                found.append(letter)
        if len(page) < size:
            return LetterPage(letters=found, next=None, looked_at=looked)
    return LetterPage(letters=found, next=before, looked_at=looked)


def count_letters(wanted: LetterFilter, *, up_to: int | None = None, cap: int = CAP) -> tuple[int, bool]:
    """Return how many dead letters are meant, and whether there may be more.

    Args:
        wanted: which ones.
        up_to: only those up to this id.
        cap: where counting stops.
    """
    state = get_state()
    if not wanted.searches:
        error_type = wanted.error_type
        number = state.count_dead_letters(cap + 1, queue=wanted.queue or None, error_type=error_type, up_to=up_to)
        return min(number, cap), number > cap
    page = find_page(wanted, before=None if up_to is None else up_to + 1, limit=LOOK_AT)
    return len(page.letters), page.next is not None


def find_newest() -> int:
    """Return the id of the newest dead letter, or 0: what fails again meanwhile comes behind it."""
    newest = get_state().list_dead_letters(limit=1)
    return newest[0].id or 0 if newest else 0


def work_off(
    action: str,
    wanted: LetterFilter,
    *,
    before: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Tally:
    """Retry or discard all dead letters that are meant, until the time is up.

    Args:
        action: "retry" or "discard".
        wanted: which ones.
        before: only those before this id.
        seconds: after which it ends, between two batches.
        clock: tells the seconds.
    """
    tally, end = Tally(next=before), clock() + seconds
    while tally.next is not None:
        page = find_page(wanted, before=tally.next, limit=BATCH)
        work_on(action, page.letters, tally)
        tally.next = page.next
        if clock() >= end:
            break
    return tally


def work_on(action: str, letters: Sequence[DeadLetter], tally: Tally) -> None:
    """Retry or discard dead letters, and count them.

    Args:
        action: "retry" or "discard".
        letters: the letters.
        tally: what is counted.
    """
    if action == "discard":
        number = discard_letters(letters) if letters else 0
        tally.done += number
        tally.gone += len(letters) - number
        return
    slices = [letter for letter in letters if (meta := read_meta(letter.task)) is not None and meta.slice is not None]
    for letter in slices:
        _retry_alone(letter, tally)
    plain = [letter for letter in letters if letter not in slices]
    if not plain:
        return
    try:
        queued = get_state().run(lambda: _retry_together(plain))
    except (SocTasksError, Error, ValueError):
        # One of them is in the way of the others.
        for letter in plain:
            _retry_alone(letter, tally)
        return
    tally.done += queued
    tally.gone += len(plain) - queued


def _retry_together(letters: Sequence[DeadLetter]) -> int:
    state = get_state()
    # Deleted first, in the order of all others: of two who retry one letter, one finds it gone.
    mine = [
        letter
        for letter in sorted(letters, key=lambda letter: letter.id or 0)
        if state.delete_dead_letters([letter.id or 0])
    ]
    if mine:
        get_backend().submit([renew_task(letter.task) for letter in mine], state.alias)
    return len(mine)


def _retry_alone(letter: DeadLetter, tally: Tally) -> None:
    try:
        retry_letter(letter.id or 0)
    except LetterNotFoundError:
        # Also where one slice of an iteration has taken the letters of the others along.
        tally.gone += 1
    except (SocTasksError, Error, ValueError) as error:
        tally.note(error)
    else:
        tally.done += 1
