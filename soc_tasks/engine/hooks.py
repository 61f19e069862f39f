"""What the engine asks and tells of those who use it; backends/embedded.py registers here.

The engine knows tasks, queues and workers, not views, iterations or dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import Error

from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks.engine")

#: Called as `exhausted(task, attempts, status)` inside the transaction on the engine's alias that removes a task
#: which failed for the last time without its view having seen to it (no answer in time, or out of attempts). `status`
#: is that of the last answer; 504: it gave none in time; 0: its process died of it; -1: it waited for too long.
Exhausted = Callable[[Task, int, int], None]
#: Called without arguments by one worker thread every few seconds, outside any transaction.
Upkeep = Callable[[], None]
#: Called as `progress(task)` inside a transaction on the engine's alias, before a task whose process died is started
#: alone and after that process died as well. Where the answers differ the task got further, and is not to blame.
Progress = Callable[[Task], str]

_exhausted: list[Exhausted] = []
_upkeep: list[Upkeep] = []
_progress: list[Progress] = []


def register(
    *, exhausted: Exhausted | None = None, upkeep: Upkeep | None = None, progress: Progress | None = None
) -> None:
    """Register what is called when a task is exhausted, for regular upkeep, and to tell progress; each once only."""
    if exhausted is not None and exhausted not in _exhausted:
        _exhausted.append(exhausted)
    if upkeep is not None and upkeep not in _upkeep:
        _upkeep.append(upkeep)
    if progress is not None and progress not in _progress:
        _progress.append(progress)


def tell_exhausted(task: Task, attempts: int, status: int) -> None:
    """Tell that `task` was removed after `attempts` attempts, the last answered with `status` (see `Exhausted`)."""
    for hook in _exhausted:
        hook(task, attempts, status)


def run_upkeep() -> None:
    """Run what was registered for regular upkeep; one that fails does not keep the others from it."""
    for hook in _upkeep:
        try:
            hook()
        except Error as error:
            # Tables that are missing, a database that is not there: no fault of the code, and it may last.
            logger.warning("regular upkeep failed and is tried again: %s", error)
        except Exception:
            logger.exception("regular upkeep failed and is tried again")


def ask_progress(task: Task) -> str:
    """Return how far `task` has come, as those tell it who know; "" if nobody does."""
    return "/".join(hook(task) for hook in _progress)
