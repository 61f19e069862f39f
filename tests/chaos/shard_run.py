"""An iteration in shards whose processes are killed again and again: `python -m tests.chaos.shard_run OPTIONS`; JSON.

On the embedded engine two workers are killed; beside `tasks serve` two processes of the site, and the relay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext

import django

#: Seconds from ready to the kill: of a worker, whose shards wait for each other; and of a process of the site, which
#: must connect to the server before it can answer.
WORKER_LIFE, SITE_LIFE = (0.4, 1.0), (2.0, 4.0)
#: Seconds of processor time that it has meanwhile.
LEAST_WORK = 0.3


def start(name, atomic):
    """Start the iteration that is meant; return its id."""
    from soc_tasks import RetryOptions, defer_iteration_with_finalize, startTask
    from tests.chaos.models import Row
    from tests.chaos.site import count_one, end_once, lopsided
    from tests.chaos.site_constants import BATCH, SHARDS

    if name == "view":
        view = "shards-atomic" if atomic else "shards-leased"
        # Beside `tasks serve`, which knows no "busy", attempts are few: only those count that failed, or were killed.
        # On a machine that has much to do a handful can all be killed before one gets on.
        most = 20 if "SOC_TASKS_CHAOS_BACKEND" in os.environ else -1
        return startTask(view, retry_options=RetryOptions(max_attempts=most)).iteration
    return defer_iteration_with_finalize(
        Row.objects.all(), count_one, end_once, key_ranges_getter=lopsided, _shards=SHARDS, _atomic=atomic,
        _batch_size=BATCH,
    ).iteration  # fmt: skip


def report():
    """Count what was lost and doubled, how often finalize ran, and how many parts were taken over."""
    from soc_tasks.state import get_state
    from tests.chaos import tables
    from tests.chaos.models import Effect
    from tests.chaos.site_constants import END, TAKEN_OVER

    letters = [f"{letter.error_type}: {letter.error}" for letter in get_state().list_dead_letters()]
    numbers = Counter(Effect.objects.values_list("number", flat=True))
    return {**tables.count_rows(), "letters": letters, "ends": numbers[END], "taken_over": numbers[TAKEN_OVER]}


def drain(tell, served, seconds):
    """Run what is left: what was doubled and delayed is still to come, and must do nothing."""
    from soc_tasks.backends import get_backend
    from soc_tasks.engine.worker import Worker
    from tests.chaos.served import count_tasks

    signal.alarm(0)
    pause, end = threading.Event(), time.monotonic() + seconds
    while True:
        if served is None:
            Worker(threads=2).run_until_empty()
            left = len(get_backend().list_tasks(limit=10_000))
        else:
            get_backend().relay()
            left = count_tasks()
        if not left or time.monotonic() > end:
            break
        pause.wait(0.1)
    tell(json.dumps({**report(), "left": left}))


def main(served, *, name, atomic, rows, seed, seconds):
    """Run an iteration over so many rows, for so many seconds at most."""
    from soc_tasks.engine.worker import Worker
    from tests.chaos import kill_run, tables
    from tests.chaos.forks import Child, warm_up

    def warm():
        if served is None:
            start(name, atomic)
            Worker(threads=2).run_until_empty()

    def prepare(tell):
        from tests.chaos.served import make_queues

        make_queues()

    def begin(tell):
        tell(start(name, atomic))

    tables.clear()
    warm_up(warm)
    tables.clear(rows)
    if served is not None:
        assert Child(prepare).wait().status == 0
    begun = Child(begin).wait()
    assert begun.status == 0, "it could not be started"
    clock = time.monotonic()
    works = [kill_run.work] * 2 if served is None else [served.site, served.site, served.relay]
    life = WORKER_LIFE if served is None else SITE_LIFE
    kills = kill_run.kill_until_over(begun.told.strip(), seed, seconds, *works, life=life, least_work=LEAST_WORK)
    took = round(time.monotonic() - clock, 1)
    keeper = None
    if served is not None:
        # Somebody must answer what is left.
        keeper = Child(served.site)
    try:
        drained = Child(lambda tell: drain(tell, served, seconds)).wait()
        assert drained.status == 0, "what was left could not be run"
    finally:
        if keeper is not None:
            keeper.kill(signal.SIGKILL)
            keeper.wait()
    return {"kills": sum(kills[:2]), "seconds": took, **json.loads(drained.told)}


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    if options.pop("cloud"):
        from tests.chaos.served import serving

        context = serving()
    else:
        context = nullcontext()
    with context as served:
        django.setup()
        result = main(served, **options)
    print(json.dumps(result))
