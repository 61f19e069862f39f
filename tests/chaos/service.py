"""A service that loses requests, loses replies, and has no time: `python -m tests.chaos.service SEED`.

It prints its address, and when its standard input ends a line of JSON: the numbers of the tasks that it took, and how
often it did what.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from urllib.parse import parse_qs

import django
from grpc import StatusCode

from tests.backends.fake_service import FakeService

#: Part of the calls, code, and whether the task is taken all the same.
FAULTS = [
    (0.04, StatusCode.UNAVAILABLE, False),
    (0.04, StatusCode.UNAVAILABLE, True),
    (0.02, StatusCode.DEADLINE_EXCEEDED, False),
    (0.02, StatusCode.DEADLINE_EXCEEDED, True),
    (0.02, StatusCode.RESOURCE_EXHAUSTED, False),
    (0.01, StatusCode.INTERNAL, False),
    (0.01, StatusCode.INTERNAL, True),
]


def main(seed):
    """Serve until nobody is there any more."""
    django.setup()
    from soc_tasks.logic.calls import read_call

    draw, counts, fake = random.Random(seed), Counter(), FakeService()

    def fault(request):
        counts["requests"] += 1
        at = draw.random()
        for part, code, taken in FAULTS:
            if at < part:
                counts[f"{code.name}{' taken' if taken else ''}"] += 1
                return code, taken
            at -= part
        counts["ALREADY_EXISTS"] += getattr(request, "task", None) is not None and request.task.name in fake.tasks
        return None

    fake.fault = fake.batch_fault = fault
    print(fake.address, flush=True)
    sys.stdin.read()
    fake.stop()
    bodies = [parse_qs(task.app_engine_http_request.body.decode()) for task in fake.tasks.values()]
    # A deferred call has it as its last argument.
    numbers = [
        int(body["number"][0]) if "number" in body else read_call(body["payload"][0]).args[-1] for body in bodies
    ]
    print(json.dumps({"numbers": numbers, "counts": counts}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
