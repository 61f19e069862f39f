"""A worker that stands still for three leases and goes on: `python -m tests.chaos.zombies OPTIONS`; prints JSON.

It is stopped by SIGSTOP at a point of its own: in the middle of a batch, or at any statement or commit. Another worker
works meanwhile. Where the stopped one holds locks that others need, they wait for it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading

import django

ROWS = 11
LEASES = 3


def live(view, tell):
    from soc_tasks.engine.worker import Worker

    Worker(threads=1).run_until_empty()
    tell("ended")


def is_in_the_middle(name):
    """Tell whether a point is that before a batch's own statement."""
    return name.startswith("before UPDATE") and "chaos_row" in name


def stop_at(view, point):
    """Stop a worker at a point (None: in the middle of a batch) while another works; return what is wrong."""
    from soc_tasks import RetryOptions, startTask
    from soc_tasks.conf import get_settings
    from tests.chaos import tables
    from tests.chaos.forks import Child
    from tests.chaos.points import Points
    from tests.chaos.site_constants import SMALL_BATCH

    tables.clear(ROWS)
    startTask(view, retry_options=RetryOptions(max_attempts=-1))

    def work_and_stop(tell):
        def stop(name):
            tell(name)
            os.kill(os.getpid(), signal.SIGSTOP)

        Points(lambda number, name: is_in_the_middle(name) if point is None else number == point, stop).install()
        live(view, tell)

    zombie = Child(work_and_stop)
    stopped = zombie.is_stopped()
    other = Child(lambda tell: live(view, tell))
    threading.Event().wait(LEASES * get_settings().lease_seconds if stopped else 0)
    taken_over = tables.report()["done"] if stopped else 0
    zombie.kill(signal.SIGCONT) if stopped else None
    ends = [zombie.wait(), other.wait()]
    Child(lambda tell: live(view, tell)).wait()
    found = tables.report()
    doubled = found.pop("doubled")
    expected = {"status": "succeeded", "unfinished": 0, "done": ROWS, "lost": 0, "ends": 1, "left": 0, "letters": 0}
    wrong = {name: value for name, value in found.items() if value != expected[name]}
    if [end.status for end in ends] != [0, 0]:
        wrong["statuses"] = [end.status for end in ends]
    if doubled > (0 if view == "step-atomic" else SMALL_BATCH):
        wrong["doubled"] = doubled
    return stopped, taken_over, doubled, f"{point} {ends[0].told.split(chr(10))[0]}: {wrong}" if wrong else ""


def main(*, view, sample=None, seed=1):
    """Stop it in the middle of a batch, and at so many other points."""
    from soc_tasks import startTask
    from tests.chaos import tables
    from tests.chaos.forks import Child, warm_up
    from tests.chaos.points import Points

    tables.clear(ROWS)
    startTask(view)
    warm_up(lambda: live(view, str))
    points = [None]
    if sample:
        tables.clear(ROWS)
        startTask(view)

        def count(tell):
            points = Points(lambda number, name: False, str)
            points.install()
            live(view, str)
            tell(points.count)

        points += sorted(random.Random(seed).sample(range(1, int(Child(count).wait().told)), sample))
    results = [stop_at(view, point) for point in points]
    return {
        "stops": sum(stopped for stopped, *_ in results),
        "overtaken": sum(done > 0 for _, done, *_ in results),
        "doubled": sum(doubled for *_, doubled, _ in results),
        "wrong": [wrong for *_, wrong in results if wrong],
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
