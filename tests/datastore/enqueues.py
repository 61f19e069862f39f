"""Tasks exist if and only if their transaction on Datastore committed: `python -m tests.datastore.enqueues OPTIONS`.

Children make transactions of a client that put a mark and start a task each; some roll back, and many are killed in the
midst: before or after a call of Datastore's, or of the service that takes the tasks, which loses requests and replies.
A relay that is killed as well sends what is left. It prints JSON: marks and tasks must be the same in the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import django

#: Part of the transactions in whose midst the process is killed, and that roll back.
KILLED, ROLLED_BACK = 0.4, 0.25
#: Places to be killed at in one transaction with what follows it, about; and seconds of an outbox entity's lease.
POINTS, LEASE = 11, 0.3
PATIENCE = 120.0


class _RollbackError(Exception):
    pass


class Points:
    """Counts the places that a process comes by, and kills it at one of them."""

    def __init__(self, last):
        self._left = last

    def __call__(self):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner, *names):
        """Come by a place before and after each call of methods."""
        for name in names:
            setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, call):
        def watched(*args, **kwargs):
            self()
            try:
                return call(*args, **kwargs)
            finally:
                self()

        return watched


def hurry():
    """Wait less for what is lost than a site would."""
    from soc_tasks.backends.cloud_tasks import service
    from soc_tasks.state import datastore_outbox

    datastore_outbox.OUTBOX_LEASE = LEASE
    service.FIRST_PAUSE = 0.002


def make_transaction(number, draw):
    """Put a mark and start a task in a transaction, and be killed, perhaps."""
    from google.cloud import datastore

    from soc_tasks import defer, startTask
    from soc_tasks.backends import get_backend
    from soc_tasks.state.datastore import get_client
    from tests.datastore.bare.urls import take_note

    client, points = get_client(), Points(draw.randrange(1, POINTS) if draw.random() < KILLED else 0)
    points.watch(client._datastore_api, "begin_transaction", "lookup", "commit", "rollback")
    points.watch(get_backend(), "accept")
    rolls_back = draw.random() < ROLLED_BACK
    try:
        with client.transaction():
            client.put(datastore.Entity(client.key("Mark", number + 1)))
            if draw.random() < 0.5:
                defer(take_note, number, _using=client)
            else:
                startTask("remember", {"number": number}, using=client)
            if rolls_back:
                raise _RollbackError
    except _RollbackError:
        pass


def fork(work):
    """Do work in a process of its own; return how it ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            hurry()
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def relay():
    """Relay until the outbox is empty."""
    from soc_tasks.backends import get_backend
    from soc_tasks.state.datastore import get_client
    from soc_tasks.state.datastore_records import OUTBOX

    pause, end = threading.Event(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        get_backend().relay()
        query = get_client().query(kind=OUTBOX)
        query.keys_only()
        if not list(query.fetch(limit=1)):
            return
        pause.wait(0.05)
    raise RuntimeError("the outbox is not empty in the end")


def main(*, count, seed, relays):
    """Make so many transactions, and kill so many relays."""
    # Imported once for all that are forked; none may have a channel before that.
    from django.urls import resolve

    from soc_tasks.backends.cloud_tasks.wire import messages

    messages()
    resolve("/visit/")
    draw, kills, began = random.Random(seed), 0, time.monotonic()
    service = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.service", str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        os.environ["TASKS_EMULATOR_HOST"] = service.stdout.readline().strip()
        for number in range(count):
            chances = random.Random(draw.random())
            status = os.waitpid(fork(partial(make_transaction, number, chances)), 0)[1]
            assert status in (0, signal.SIGKILL), f"transaction {number} ended with {status}"
            kills += status == signal.SIGKILL
        for _ in range(relays):
            child = fork(relay)
            # Anywhere in its work; it may have ended by then.
            threading.Event().wait(draw.uniform(0.2, 0.6))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        drained = os.waitpid(fork(relay), 0)[1]
        took = json.loads(service.communicate()[0])
    finally:
        service.kill()
        service.wait()
    from google.cloud import datastore

    client = datastore.Client(namespace=os.environ["BARE_NAMESPACE"])
    marks = {entity.key.id - 1 for entity in client.query(kind="Mark").fetch()}
    taken = took["numbers"]
    return {
        "transactions": count,
        "kills": kills,
        "tasks": len(marks),
        "ghosts": len(set(taken) - marks),
        "missing": len(marks - set(taken)),
        "doubled": len(taken) - len(set(taken)),
        "status": drained,
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
