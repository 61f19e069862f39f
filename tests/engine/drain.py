"""Running due tasks in the calling thread, one after the other: for tests. It shows no sign of life while it runs."""

from __future__ import annotations

import os
from typing import Final

from soc_tasks.engine.attempts import Dispatch, Job, make_attempt
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.engine.processes import born, this_host
from soc_tasks.engine.store.base import Queues, Store
from soc_tasks.engine.verdicts import Verdict, judge

#: Tasks that are claimed at a time.
BATCH: Final = 20


def drain(store: Store, *, dispatch: Dispatch | None = None, queues: Queues = None, limit: int | None = None) -> int:
    """Run what is due by the store's clock until nothing is; return how many attempts were made.

    Args:
        store: where the tasks are.
        dispatch: makes the calls; None: in this process, by Django's WSGI handler.
        queues: the queues to work on; None: all.
        limit: most attempts to make; None: as many as it takes.
    """
    dispatch = dispatch or InProcessDispatcher()
    worker = store.join(this_host(), os.getpid(), born(os.getpid()))
    verdicts: list[Verdict] = []
    count = 0
    try:
        while True:
            room = BATCH if limit is None else min(BATCH, limit - count)
            leased = store.exchange(worker, verdicts, room, queues)
            verdicts = []
            if not leased and room > 0 and (suspect := store.claim_suspect(worker, queues)):
                leased = [suspect]
            if not leased:
                return count
            for task in leased:
                job = Job(task)
                make_attempt(job, dispatch, store.clock, _never)
                if job.answer is not None:
                    verdicts.append(judge(task, job.answer, job.started, job.ended))
            count += len(leased)
    finally:
        # On the way out by an error: what was answered stays answered, the rest goes back.
        if verdicts:
            store.exchange(worker, verdicts, 0)
        store.leave(worker)


def _never() -> bool:
    return False
