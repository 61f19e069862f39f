"""Rows with ties and NULLs, and the walk over them that every batch test takes."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from tests.specimen.models import Entry, Program


def make_entries(number=31, using="default", seed=7):
    """Make entries whose every field but the unique ones has ties, in no order."""
    choose = random.Random(seed).choice
    programs = [Program.objects.using(using).create(name=name) for name in ("Zoology", "Algebra", "Music")]
    tokens = [uuid.UUID(int=value) for value in (1, 1 << 64, 1 << 127)]
    moment = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    codes = random.Random(seed).sample(range(number), number)
    return Entry.objects.using(using).bulk_create(
        Entry(
            program=choose([None, *programs]),
            code=f"code-{code:04}",
            alias=choose([None, f"alias-{code:04}"]),
            title=choose(["", "a", "b b", "b\n'\"\\", "ø"]),
            remark=choose([None, "x", "y"]),
            count=choose([-5, 0, 7, 2**31 - 1]),
            size=choose([None, 0, 3]),
            rating=choose([None, 0.1, 1 / 3, -2.5e-300, 1e300]),
            price=choose([None, Decimal("0.3"), Decimal("1.1000"), Decimal("-99999999.9999")]),
            day=choose([date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)]),
            moment=choose([None, moment, moment.replace(microsecond=0), moment - timedelta(microseconds=1)]),
            slot=choose([time(0, 0), time(12, 30), time(12, 30, 0, 1)]),
            span=choose([timedelta(0), timedelta(days=-3, microseconds=7), timedelta(days=400, seconds=59)]),
            token=choose([None, *tokens]),
            flag=choose([False, True]),
        )
        for code in codes
    )


def sort_rows(rows, field, descending=False):
    """Return rows by `field` and primary key, both rising or both falling, with NULLs last either way."""
    filled = [row for row in rows if getattr(row, field) is not None]
    nulls = [row for row in rows if getattr(row, field) is None]
    filled.sort(key=lambda row: (getattr(row, field), row.pk), reverse=descending)
    return filled + sorted(nulls, key=lambda row: row.pk, reverse=descending)


def walk(logic, start_key=None, after_batch=None, **options):
    """Return the primary keys of all batches one after the other; `after_batch(entities, next_key)` may interfere."""
    visited = []
    while True:
        entities, next_key = logic.getBatchOfData(None, start_key, **options)
        visited += [entity.pk for entity in entities]
        if after_batch:
            after_batch(entities, next_key)
        if next_key is None:
            return visited
        assert entities, "a batch before the last one holds something"
        start_key = next_key
