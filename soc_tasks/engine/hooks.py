"""What the engine asks and tells of those who use it; backends/embedded.py registers here.

The engine knows tasks, queues and workers, not views, iterations or dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from django.db import Error, transaction

from soc_tasks.conf import get_settings
from soc_tasks.engine.verdicts import EXPIRED, NO_ANSWER, UNKNOWN
from soc_tasks.logs import log_task
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks.engine")

#: Called as `exhausted(task, attempts, status)` inside the transaction on the engine's alias that removes a task
#: which failed for the last time without its view having seen to it (no answer in time, or out of attempts). `status`
#: is that of the last answer; 504: it gave none in time; 0: its process died of it; -1: it waited for too long; -2: no
#: worker that took it knew its URL or its function, for a day.
Exhausted = Callable[[Task, int, int], None]
#: Called without arguments by one worker thread every few seconds, outside any transaction.
Upkeep = Callable[[], None]
#: Called so, too, but once a minute, and in a few seconds again where it says that there may be more to sweep.
Sweep = Callable[[], bool]
#: Called as `progress(task)` inside a transaction on the engine's alias, before a task whose process died is started
#: alone and after that process died as well. Where the answers differ the task got further, and is not to blame.
Progress = Callable[[Task], str]

#: What stands in a line as the error of an attempt whose process died, of a task that waited for too long, and of one
#: that no worker knew.
PROCESS_DIED: Final = "ProcessDied"
TOO_OLD: Final = "Expired"
NOBODY_KNEW: Final = "UnknownTask"

_exhausted: list[Exhausted] = []
_upkeep: list[Upkeep] = []
_sweeps: list[Sweep] = []
_progress: list[Progress] = []
#: What found no database in its last round, and has said so.
_in_trouble: set[Upkeep | Sweep] = set()


def register(
    *,
    exhausted: Exhausted | None = None,
    upkeep: Upkeep | None = None,
    sweep: Sweep | None = None,
    progress: Progress | None = None,
) -> None:
    """Register what is called when a task is exhausted, for regular upkeep, and to tell progress; each once only."""
    if exhausted is not None and exhausted not in _exhausted:
        _exhausted.append(exhausted)
    if upkeep is not None and upkeep not in _upkeep:
        _upkeep.append(upkeep)
    if sweep is not None and sweep not in _sweeps:
        _sweeps.append(sweep)
    if progress is not None and progress not in _progress:
        _progress.append(progress)


def tell_exhausted(task: Task, attempts: int, status: int) -> None:
    """Tell that `task` was removed after `attempts` attempts, the last answered with `status` (see `Exhausted`)."""
    for hook in _exhausted:
        hook(task, attempts, status)
    # Other ends are those of an attempt, which has its line.
    if status == NO_ANSWER:
        _log_end(task, attempts + 1, "dead", PROCESS_DIED)
    elif status == EXPIRED:
        _log_end(task, attempts, "dead", TOO_OLD)
    elif status == UNKNOWN:
        _log_end(task, attempts, "dead", NOBODY_KNEW)


def tell_crash(task: Task, attempts: int) -> None:
    """Tell that the process died which ran `task` alone, after `attempts` attempts that ended; it will run again."""
    _log_end(task, attempts + 1, "retry", PROCESS_DIED)


def _log_end(task: Task, attempt: int, outcome: str, error: str) -> None:
    """Write the line of a task that gave no answer, once the open transaction has committed."""
    write = partial(
        log_task,
        queue=task.queue,
        task=task.name,
        path=task.path,
        attempt=attempt,
        outcome=outcome,
        error=error,
        level=logging.WARNING,
    )
    transaction.on_commit(write, using=get_settings().database, robust=True)


def run_upkeep(*, sweeps: bool = True) -> bool:
    """Run what was registered for regular upkeep; one that fails does not keep the others from it.

    Args:
        sweeps: whether what is called once a minute is called now.

    Returns:
        Whether to call that with the next round again: there may be more, or something failed.
    """
    more = False
    for hook in (*_upkeep, *(_sweeps if sweeps else ())):
        try:
            more = bool(hook()) or more
        except Error as error:
            # Tables that are missing, a database that is not there: no fault of the code, and it may last.
            if hook not in _in_trouble:
                logger.warning("regular upkeep failed and is tried again: %s", error)
            _in_trouble.add(hook)
            more = True
        except Exception:
            logger.exception("regular upkeep failed and is tried again")
            more = True
        else:
            _in_trouble.discard(hook)
    return more


def ask_progress(task: Task) -> str:
    """Return how far `task` has come, as those tell it who know; "" if nobody does."""
    return "/".join(hook(task) for hook in _progress)
