"""Dead letters: what failed for good, and how it is run again."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from soc_tasks.backends import get_backend
from soc_tasks.errors import SocTasksError
from soc_tasks.logic.iterations import Iteration
from soc_tasks.meta import make_start_id, read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter
from soc_tasks.values import META_HEADER


class LetterNotFoundError(SocTasksError, LookupError):
    """There is no such dead letter."""


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
    state = get_state()
    with state.atomic():
        letter = state.get_dead_letter(letter_id)
        if letter is None:
            raise LetterNotFoundError(f"There is no dead letter {letter_id}.")
        meta = read_meta(letter.task)
        if meta is not None and meta.slice is not None:
            return _resume(letter, meta.slice.iteration)
        # Deleted first: of two who retry one letter, one finds it gone.
        if not state.delete_dead_letters([letter_id]):
            raise LetterNotFoundError(f"There is no dead letter {letter_id} any more.")
        now = datetime.now(UTC)
        headers = dict(letter.task.headers)
        if meta is not None:
            # Its attempts, and the time that they may take, count anew.
            headers[META_HEADER] = dataclasses.replace(meta, tried=0, since=round(now.timestamp(), 3)).to_header()
        task = dataclasses.replace(
            letter.task, name=make_start_id(), named=False, headers=headers, created=now, eta=None
        )
        get_backend().submit([task], state.alias)
    return f"queued in {task.queue} as {task.name}"


def _resume(letter: DeadLetter, iteration_id: str) -> str:
    try:
        iteration = Iteration.get(iteration_id).resume()
    except Iteration.DoesNotExist:
        return f"left: its iteration {iteration_id} is past the retention time; discard it"
    if letter.id is not None:
        get_state().delete_dead_letters([letter.id])
    return f"iteration {iteration_id} is {iteration.status}"
