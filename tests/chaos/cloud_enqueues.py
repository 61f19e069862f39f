"""The same of tasks on Cloud Tasks: `python -m tests.chaos.cloud_enqueues OPTIONS`; prints JSON.

Processes that make transactions are killed in the midst, and so is the relay, while the service loses requests and
replies. What the service took and what was committed must be the same in the end.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time

import django

#: Statements of one transaction and what follows its commit, about; and seconds of an outbox row's lease.
POINTS, LEASE = 30, 0.3
#: Processes that enqueue and are killed, to one relay that is.
TO_A_RELAY = 10
PATIENCE = 60.0


def relay_until(ended):
    """Relay, again and again."""
    from soc_tasks.backends import get_backend

    backend, pause = get_backend(), threading.Event()
    while not ended():
        backend.relay()
        pause.wait(0.05)


def drain(alias):
    """Relay until the outbox is empty, whose rows may be leased to the dead."""
    from soc_tasks.models import OutboxRow

    end = time.monotonic() + PATIENCE
    relay_until(lambda: time.monotonic() > end or not OutboxRow.objects.using(alias).exists())


def hurry():
    """Wait less for what is lost than a site would."""
    from soc_tasks.backends.cloud_tasks import backend, service
    from soc_tasks.state import django_outbox

    django_outbox.OUTBOX_LEASE = LEASE
    service.FIRST_PAUSE = 0.002
    # Whoever enqueues relays as well.
    backend.RELAY_EVERY = 0.5


def main(*, count, alias, seed, deferred):
    """Make so many transactions on an alias, with deferred calls or with tasks."""
    from django.db import transaction

    from soc_tasks.backends.cloud_tasks.wire import messages
    from soc_tasks.models import DeadLetterRow, OutboxRow
    from tests.chaos import enqueues, tables
    from tests.chaos.forks import Child, warm_up
    from tests.chaos.models import Mark

    enqueues.POINTS = POINTS
    hurry()

    def warm():
        # Nothing that is rolled back is sent: this process must not begin with gRPC, or its children could not.
        messages()
        with transaction.atomic(using=alias):
            enqueues.make_transaction(0, alias, random.Random(seed), deferred=deferred)
            transaction.set_rollback(True, using=alias)

    tables.clear()
    warm_up(warm)
    start = time.monotonic()
    service = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.service", str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        os.environ["TASKS_EMULATOR_HOST"] = service.stdout.readline().strip()
        relays, first, kills = [], 0, 0
        while first < count:
            relays.append(subprocess.Popen([sys.executable, "-m", "tests.chaos.cloud_enqueues", "relay"]))
            for _ in range(TO_A_RELAY):
                if first < count:
                    first, killed = enqueues.enqueue(first, count, alias, seed, deferred=deferred)
                    kills += killed
            relays[-1].kill()
            relays[-1].wait()
        drained = Child(lambda tell: drain(alias)).wait()
        took = json.loads(service.communicate()[0])
    finally:
        service.kill()
        service.wait()
    marks = set(Mark.objects.using(alias).values_list("number", flat=True))
    return {
        "transactions": count,
        "kills": kills,
        "relays_killed": len(relays),
        "tasks": len(marks),
        "ghosts": len(set(took["numbers"]) - marks),
        "missing": len(marks - set(took["numbers"])),
        "doubled": tables.count_repeated(took["numbers"]),
        "left": OutboxRow.objects.using(alias).count() + DeadLetterRow.objects.count(),
        "status": drained.status,
        "service": took["counts"],
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "relay":
        hurry()
        relay_until(lambda: False)
    else:
        print(json.dumps(main(**json.loads(sys.argv[1]))))
