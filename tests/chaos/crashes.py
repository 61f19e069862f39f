"""Die at each numbered point of a small site's life: `python -m tests.chaos.crashes OPTIONS`; prints JSON.

A child starts an iteration, a task beside it, and one on another alias, and then works until nothing is left; but at
its point it dies by os._exit. With pairs a second child goes on, and dies at a point of its own. A last one goes on to
the end. Then everything must be there once.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time

import django

#: How a child says that it died at its point.
CRASHED = 99
#: Seconds of a lease here, of shards and of outbox rows.
LEASE = 0.1
ROWS = 5
#: Rounds in which the last child must come to the end.
ROUNDS = 200


def live(view):
    """Start what is not started yet, and work until nothing is left."""
    from django.db import transaction

    from soc_tasks import RetryOptions, startTask
    from soc_tasks.engine.worker import Worker
    from tests.chaos.models import Mark

    starts = [
        ("default", view, {}),
        ("other", "effect", {"number": 2}),
        ("default", "effect", {"number": 3}),
    ]
    for number, (alias, name, context) in enumerate(starts, 1):
        if Mark.objects.using(alias).filter(number=number).exists():
            continue
        with transaction.atomic(using=alias):
            Mark.objects.using(alias).create(number=number)
            startTask(name, context, using=alias, retry_options=RetryOptions(max_attempts=-1))
    Worker(threads=1).run_until_empty()


def live_to_the_end(view):
    """Go on until outboxes are empty, whose rows may be leased to the dead, and nothing waits for its next try."""
    from soc_tasks.models import OutboxRow
    from tests.chaos import tables

    pause = threading.Event()
    for _ in range(ROUNDS):
        live(view)
        waiting = sum(OutboxRow.objects.using(alias).count() for alias in ("default", "other"))
        if not waiting and not tables.report()["left"]:
            return
        pause.wait(LEASE / 5)


def run_child(view, point=None, *, commits_only=False):
    """Run a child until its point, or to the end; return how that went, and how many points it came to."""
    from tests.chaos.forks import Child
    from tests.chaos.points import Points

    def work(tell):
        def crash(name):
            tell(name)
            os._exit(CRASHED)

        points = Points(lambda number, name: number == point, crash, commits_only=commits_only)
        points.install()
        (live_to_the_end if point is None else live)(view)
        tell(points.count)

    return Child(work).wait()


def examine(view):
    """Return what is wrong, and how many rows were doubled."""
    from soc_tasks import Iteration
    from soc_tasks.models import FailedItemRow, OutboxRow, ReceiptRow
    from soc_tasks.state import get_state
    from tests.chaos import tables
    from tests.chaos.models import Effect

    found = tables.report()
    doubled = found.pop("doubled")
    found |= {
        "effects": sorted(Effect.objects.values_list("number", flat=True)),
        "receipts": ReceiptRow.objects.count(),
        "outbox": sum(OutboxRow.objects.using(alias).count() for alias in get_state().outbox_aliases()),
        "failed": sum(iteration.failed for iteration in Iteration.all()),
        "ledger": FailedItemRow.objects.count(),
    }
    failing = int(view.startswith("skip"))
    expected = {
        "status": "succeeded", "unfinished": 0, "done": ROWS - failing, "lost": failing, "ends": 1, "left": 0,
        "letters": 0, "effects": [2, 3], "receipts": 2, "outbox": 0, "failed": failing, "ledger": failing,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value != expected[name]}, doubled


def check(view, crashes, commits_only):
    """Crash at these points, one child after the other, and go on to the end; return what was wrong, and what doubled.

    The last item is at how many of the points a child came to its end.
    """
    from tests.chaos import tables
    from tests.chaos.site_constants import SMALL_BATCH

    tables.clear(ROWS)
    names, died = [], 0
    for point in crashes:
        end = run_child(view, point, commits_only=commits_only)
        names.append(end.told.strip())
        if end.status == CRASHED:
            died += 1
        elif end.status:
            return f"{crashes} {names}: ended with {end.status}", 0, died
    end = run_child(view)
    wrong, doubled = examine(view)
    if end.status:
        wrong["end"] = end.status
    if doubled > (0 if view.endswith("atomic") else died * SMALL_BATCH):
        wrong["doubled"] = doubled
    return f"{crashes} {names}: {wrong}" if wrong else "", doubled, died


def main(*, view, depth=1, sample=None, seed=1, commits_only=False):
    """Check all points, or a sample of them.

    Args:
        view: the iteration's.
        depth: how many children die one after the other.
        sample: how many tries to make; None: all.
        seed: chooses the sample.
        commits_only: whether only commits are points.
    """
    from soc_tasks.engine import emptiness
    from soc_tasks.state import django_outbox
    from tests.chaos import tables
    from tests.chaos.forks import warm_up

    # Waiting is not what is tested here.
    emptiness.ASK = 0.01
    django_outbox.OUTBOX_LEASE = LEASE
    tables.clear(ROWS)
    warm_up(lambda: live_to_the_end(view))
    tables.clear(ROWS)
    start = time.monotonic()
    count = int(run_child(view, 0, commits_only=commits_only).told)
    points = range(1, count + 1)
    tries = [(point,) for point in points] if depth == 1 else [(a, b) for a in points for b in points]
    if sample is not None and sample < len(tries):
        tries = random.Random(seed).sample(tries, sample)
    wrong, total, deaths, made, ends = [], 0, 0, 0, {}
    for crashes in tries:
        if len(crashes) > 1 and crashes[-1] > ends.get(crashes[0], count):
            # The second one came to its end before: the same as a single crash.
            continue
        error, doubled, died = check(view, crashes, commits_only)
        made += 1
        if died < len(crashes):
            ends[crashes[0]] = crashes[-1]
        total += doubled
        deaths += died
        if error:
            wrong.append(error)
    seconds = round(time.monotonic() - start, 1)
    return {
        "points": count, "tries": made, "deaths": deaths, "doubled": total, "wrong": wrong, "seconds": seconds,
    }  # fmt: skip


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
