"""Fill the table and start an iteration: `python -m tests.chaos.start NAME ROWS`; prints the iteration's id."""

from __future__ import annotations

import sys

import django

if __name__ == "__main__":
    django.setup()

    from soc_tasks import RetryOptions, startTask
    from tests.specimen.models import Row

    name, rows = sys.argv[1], int(sys.argv[2])
    Row.objects.bulk_create((Row() for _ in range(rows)), batch_size=500)
    print(startTask(name, retry_options=RetryOptions(max_attempts=-1)).iteration)
