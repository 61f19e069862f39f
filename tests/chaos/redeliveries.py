"""One task delivered a hundred times at once: `python -m tests.chaos.redeliveries OPTIONS`; prints JSON.

It is atomic, or starts an iteration.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import django

#: Rounds in which deliveries that were refused come again.
ROUNDS = 20


def main(*, view, number=100):
    """Deliver it so many times at once, and again what is not answered with 2xx."""
    from django.db import connections

    from soc_tasks import Iteration
    from soc_tasks.backends import get_backend
    from soc_tasks.engine.dispatchers import make_dispatcher
    from soc_tasks.logic.tasks import build_task
    from soc_tasks.models import IterationRow, ReceiptRow
    from soc_tasks.values import Delivery, TaskRequest
    from tests.chaos import site, tables
    from tests.chaos.models import Effect

    tables.clear()
    dispatch = make_dispatcher()
    outcomes, answers, lock = Counter(), [], threading.Lock()
    task, _ = build_task(TaskRequest(url=view, context={"number": 1}), "default")

    def deliver(barrier, attempt):
        delivery = Delivery(
            queue="default",
            name=task.name,
            retry_count=attempt,
            execution_count=attempt,
            eta=task.created,
            previous_status=None,
            is_last_attempt=False,
            deadline=time.monotonic() + 60,
            stopping=lambda: False,
            outcomes=[],
        )
        barrier.wait(60)
        try:
            answer = dispatch(task, delivery)
        finally:
            connections.close_all()
        with lock:
            outcomes.update(delivery.outcomes)
            answers.append(answer.status)

    with tempfile.TemporaryDirectory() as folder:
        site.memory = Path(folder)
        left, rounds = number, 0
        while left and rounds < ROUNDS:
            barrier = threading.Barrier(left)
            threads = [threading.Thread(target=deliver, args=(barrier, rounds)) for _ in range(left)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rounds += 1
            left -= sum(status < 300 for status in answers)
            answers.clear()
    return {
        "deliveries": number,
        "rounds": rounds,
        "left": left,
        "effects": Effect.objects.count() + len(Iteration.all()),
        "receipts": ReceiptRow.objects.count() + IterationRow.objects.count(),
        "tasks": len(get_backend().list_tasks()),
        "outcomes": dict(sorted(outcomes.items())),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
