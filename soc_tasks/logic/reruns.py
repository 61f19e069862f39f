"""Running a task again that is still in its queue: as a new one, beside it."""

from __future__ import annotations

from datetime import timedelta

from soc_tasks.backends import get_backend
from soc_tasks.conf import get_settings
from soc_tasks.errors import SocTasksError
from soc_tasks.logic.envelopes import LIFE
from soc_tasks.logic.letters import renew_task
from soc_tasks.meta import read_meta
from soc_tasks.start_ids import make_start_id
from soc_tasks.state import get_state
from soc_tasks.values import Task


class NotRerunnableError(SocTasksError):
    """The task cannot be run once more beside itself."""


def rerun_task(task: Task) -> Task:
    """Queue a copy of a task, with a start id of its own; return the copy.

    Args:
        task: the task with its body.

    Raises:
        NotRerunnableError: it is a slice of an iteration, or what it needs is gone.
        EnqueueError: the copy was not accepted.
    """
    meta = read_meta(task)
    if meta is None:
        raise NotRerunnableError(f"The task {task.name} was not made by this site, so that it cannot be made again.")
    if meta.slice is not None:
        raise NotRerunnableError(
            f"The task {task.name} is a slice of iteration {meta.slice.iteration}, which needs each slice once. "
            "Pause and resume the iteration, or start a new one."
        )
    state, start_id = get_state(), make_start_id()
    copy = renew_task(task, start_id)

    def queue() -> None:
        kept = state.get_payload(meta.start_id)
        if kept == b"":
            raise NotRerunnableError(f"What the task {task.name} needs was dropped: it has ended.")
        if kept is not None:
            until = state.now() + LIFE + timedelta(days=get_settings().retention_days)
            state.keep_payload(start_id, kept, until)
        get_backend().submit([copy], state.alias)

    state.run(queue)
    return copy
