"""Dead letters: what failed for good, and how it is run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from soc_tasks.backends import get_backend
from soc_tasks.errors import SocTasksError
from soc_tasks.logic.envelopes import forget, read_function
from soc_tasks.logic.iterations import Iteration
from soc_tasks.meta import read_meta
from soc_tasks.start_ids import make_start_id
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter
from soc_tasks.values import META_HEADER, Task

#: Letters that are looked through at a time.
PAGE: Final = 500


class LetterNotFoundError(SocTasksError, LookupError):
    """There is no such dead letter."""


def find_letters(*, queue: str | None = None, matching: str | None = None, limit: int = 100) -> list[DeadLetter]:
    """Return the newest dead letters.

    Args:
        queue: of this queue only.
        matching: only those that have this in their path, function or error, in whatever case.
        limit: how many, at most.
    """
    state, before = get_state(), None
    found: list[DeadLetter] = []
    while len(found) < limit:
        page = state.list_dead_letters(queue=queue, limit=PAGE if matching else limit, before=before)
        found += [letter for letter in page if matching is None or _matches(letter, matching.casefold())]
        if matching is None or len(page) < PAGE:
            break
        before = page[-1].id
    return found[:limit]


def _matches(letter: DeadLetter, text: str) -> bool:
    parts = (letter.task.path, name_work(letter), letter.error_type, letter.error)
    return any(text in part.casefold() for part in parts)


def name_work(letter: DeadLetter) -> str:
    """Return what a letter's task calls, for people: a deferred function, or a path."""
    return read_function(letter.task.body) or letter.task.path


def discard_letters(letters: Sequence[DeadLetter]) -> int:
    """Drop dead letters for good, with what was kept for their tasks; return how many there were."""
    state = get_state()

    def discard() -> int:
        forget(*(letter.task.start_id for letter in letters))
        return state.delete_dead_letters([letter.id for letter in letters if letter.id is not None])

    return state.run(discard)


def retry_letter(letter_id: int) -> str:
    """Queue a dead letter's task anew and drop the letter, in one transaction.

    The start id stays, so that receipts still tell a duplicate. The letter of a slice resumes its iteration.

    Args:
        letter_id: id of the letter.

    Returns:
        What was done, for people.

    Raises:
        LetterNotFoundError: it is gone.
    """
    return get_state().run(lambda: _retry(letter_id))


def _retry(letter_id: int) -> str:
    state = get_state()
    letter = state.get_dead_letter(letter_id)
    if letter is None:
        raise LetterNotFoundError(f"There is no dead letter {letter_id}.")
    meta = read_meta(letter.task)
    if meta is not None and meta.slice is not None:
        return _resume(letter, meta.slice.iteration)
    # Deleted first: of two who retry one letter, one finds it gone.
    if not state.delete_dead_letters([letter_id]):
        raise LetterNotFoundError(f"There is no dead letter {letter_id} any more.")
    task = renew_task(letter.task)
    get_backend().submit([task], state.alias)
    return f"queued in {task.queue} as {task.name}"


def renew_task(task: Task, start_id: str | None = None) -> Task:
    """Return a task as it was when it was queued first, under a new name.

    Args:
        task: the task.
        start_id: that of the new one; None: the same, so that receipts still tell a duplicate.
    """
    now = datetime.now(UTC)
    headers, meta = dict(task.headers), read_meta(task)
    if meta is not None:
        # Its attempts, and the time that they may take, count anew.
        since = round(now.timestamp(), 3)
        anew = dataclasses.replace(
            meta, start_id=start_id or meta.start_id, tried=0, since=since, unknown_since=None, waits=0
        )
        headers[META_HEADER] = anew.to_header()
    return dataclasses.replace(
        task,
        name=make_start_id(),
        named=False,
        headers=headers,
        created=now,
        eta=None,
        start_id=start_id or task.start_id,
    )


def _resume(letter: DeadLetter, iteration_id: str) -> str:
    try:
        iteration = Iteration.get(iteration_id).resume()
    except Iteration.DoesNotExist:
        return f"left: its iteration {iteration_id} is past the retention time; discard it"
    if letter.id is not None:
        get_state().delete_dead_letters([letter.id])
    return f"iteration {iteration_id} is {iteration.status}"
