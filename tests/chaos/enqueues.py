"""Tasks exist if and only if their transaction committed: `python -m tests.chaos.enqueues OPTIONS`; prints JSON.

Children make transactions that start a task each, with a mark beside it; some roll back, whole or to a savepoint, and
some children are killed in the midst, at a statement or a commit. A worker runs meanwhile. Marks and effects must be
the same in the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time

import django

#: Part of the transactions in whose midst the process is killed, that roll back, and that roll back to a savepoint.
KILLED, ROLLED_BACK, BACK_TO_SAVEPOINT = 0.04, 0.25, 0.5
#: Numbers of one transaction: before, in and after its savepoint.
STRIDE = 3
#: Statements of one transaction and what follows its commit, about; and seconds of an outbox row's lease.
POINTS, LEASE = 60, 0.5
PATIENCE = 60.0


class _RollbackError(Exception):
    pass


def make_transaction(number, alias, draw, *, deferred=False):
    from django.db import transaction

    from soc_tasks import RetryOptions, defer, startTask
    from tests.chaos.models import Mark
    from tests.chaos.site import leave_effect_on

    retry = RetryOptions(max_attempts=-1)

    def start(part):
        own = number * STRIDE + part
        Mark.objects.using(alias).create(number=own)
        if deferred:
            defer(leave_effect_on, alias, own, _using=alias, _retry_options=retry, _atomic=True)
        else:
            startTask("effect", {"number": own}, using=alias, retry_options=retry)

    rolls_back, rolls_to_savepoint = draw.random() < ROLLED_BACK, draw.random() < BACK_TO_SAVEPOINT
    try:
        with transaction.atomic(using=alias):
            start(0)
            try:
                with transaction.atomic(using=alias):
                    start(1)
                    if rolls_to_savepoint:
                        raise _RollbackError
            except _RollbackError:
                pass
            start(2)
            if rolls_back:
                raise _RollbackError
    except _RollbackError:
        pass


def enqueue(first, count, alias, seed, *, deferred):
    """Make transactions from `first` on, until one of them kills its process; return which is next, and if it did."""
    from tests.chaos.forks import Child
    from tests.chaos.points import Points

    def work(tell):
        signal.alarm(0)
        victim = [0, 0]

        def wanted(number, name):
            if victim[0] == 0:
                return False
            victim[1] += 1
            return victim[1] == victim[0]

        Points(wanted, lambda name: os.kill(os.getpid(), signal.SIGKILL)).install()
        for number in range(first, count):
            draw = random.Random(f"{seed}-{number}")
            killed = draw.random() < KILLED
            tell(str(number + 1))
            victim[:] = [draw.randint(1, POINTS) if killed else 0, 0]
            make_transaction(number, alias, draw, deferred=deferred)
            if killed:
                # It came to its end before its point: killed all the same, with nothing open.
                os.kill(os.getpid(), signal.SIGKILL)

    end = Child(work).wait()
    assert end.status in {0, -signal.SIGKILL}, end
    return int(end.told.split()[-1]), end.status != 0


def drain():
    """Work until outboxes are empty, whose rows may be leased to the dead."""
    from soc_tasks.engine.worker import Worker
    from soc_tasks.models import OutboxRow

    pause, end = threading.Event(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        Worker(threads=4).run_until_empty()
        if not sum(OutboxRow.objects.using(alias).count() for alias in ("default", "other")):
            return
        pause.wait(0.1)


def main(*, count, alias, seed, deferred):
    """Make so many transactions on an alias, with deferred calls or with tasks."""
    from soc_tasks.engine.worker import Worker
    from soc_tasks.models import OutboxRow
    from soc_tasks.state import django_outbox
    from tests.chaos import tables
    from tests.chaos.forks import Child, warm_up
    from tests.chaos.models import Effect, Mark

    django_outbox.OUTBOX_LEASE = LEASE

    def warm():
        make_transaction(0, alias, random.Random(seed), deferred=deferred)
        drain()

    tables.clear()
    warm_up(warm)
    tables.clear()

    def work(tell):
        signal.alarm(0)
        Worker(threads=2).run()

    start = time.monotonic()
    worker = Child(work)
    first = kills = 0
    try:
        while first < count:
            first, killed = enqueue(first, count, alias, seed, deferred=deferred)
            kills += killed
    finally:
        worker.kill(signal.SIGKILL)
        worker.wait()
    drained = Child(lambda tell: drain()).wait()
    marks = set(Mark.objects.using(alias).values_list("number", flat=True))
    effects = list(Effect.objects.using(alias if deferred else "default").values_list("number", flat=True))
    return {
        "transactions": count,
        "kills": kills,
        "committed": len({number // STRIDE for number in marks}),
        "tasks": len(marks),
        "ghosts": len(set(effects) - marks),
        "missing": len(marks - set(effects)),
        "doubled": tables.count_repeated(effects),
        "left": tables.report()["left"] + OutboxRow.objects.using(alias).count(),
        "status": drained.status,
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
