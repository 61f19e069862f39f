"""How others go over rows: their loops, written anew, above our queue, so that loops are compared and not queues."""

from __future__ import annotations

import time
from typing import Any

from django.db import transaction
from django.db.models import F

from benchmarks.iterations.work import BATCH, do, do_all
from benchmarks.models import Marker, Row

#: Rows that djangae's shape pages by, and seconds after which a shard hands over.
CHUNK, LIMIT = 1000, 570


def work_on_bare(queryset: Any) -> None:
    """Go over rows as everybody does at first: each write commits by itself, and a kill loses the place."""
    for row in queryset.order_by("pk").iterator(2000):
        do(row)


def work_on_batches() -> None:
    """Go over rows in the same transactions as ours: one for each batch, and no place that survives."""
    last: int | None = 0
    while last is not None:
        last = work_on_batch(last)


def work_on_batch(last: int) -> int | None:
    """Work on the rows behind a key in a transaction, and return the last one's key; None: there are no more."""
    with transaction.atomic():
        rows = list(Row.objects.filter(pk__gt=last).order_by("pk")[:BATCH])
        do_all(rows)
    return int(rows[-1].pk) if len(rows) == BATCH else None


def work_on_page(start: int) -> int | None:
    """Work on the rows from a key on, and return the key behind them, which was fetched with them."""
    rows = list(Row.objects.filter(pk__gte=start).order_by("pk")[: BATCH + 1])
    for row in rows[:BATCH]:
        do(row)
    return int(rows[BATCH].pk) if len(rows) > BATCH else None


def work_on_shard(start: int, end: int, queryset: Any) -> None:
    """Work on a range of keys, page by page at a growing OFFSET, with a look at the clock for each row."""
    begin, offset = time.monotonic(), 0
    rows = queryset.filter(pk__gte=start, pk__lt=end).order_by("pk")
    while page := list(rows[offset : offset + CHUNK]):
        for row in page:
            do(row)
            if time.monotonic() - begin > LIMIT:
                raise TimeoutError("it would hand over here, from this row")
        offset += CHUNK


def count_shard() -> None:
    """Count a shard as done, once for each delivery."""
    Marker.objects.filter(pk=1).update(done=F("done") + 1)
