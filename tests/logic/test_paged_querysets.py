"""Stored querysets page in flat cost: no batch looks through the whole table, or makes the list of all its rows."""

from __future__ import annotations

import pytest
import simplejson
from django.db import connection
from django.test.utils import CaptureQueriesContext

from soc_tasks.logic import payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.batches import ModelLogic
from tests.specimen.models import Event, Parcel

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor == "mysql", reason="its EXPLAIN counts no work that was done"),
]

NUMBER = 60_000
SIZE = 100
SERIES = {
    "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT i FROM n)",
    "postgresql": "generate_series(1, %s) AS n(i)",
}


@pytest.fixture
def many(db):
    with connection.cursor() as cursor:
        series = SERIES[connection.vendor]
        cursor.execute(
            "INSERT INTO specimen_event (kind, label, flag)"
            f" SELECT nullif(i %% 6, 0), 'label ' || (i %% 5), i %% 2 = 0 FROM {series}",
            [NUMBER],
        )
        cursor.execute(
            "INSERT INTO specimen_parcel (id, kind)"
            f" SELECT 'p' || (i * 7919 %% 100003), nullif(i %% 6, 0) FROM {series}",
            [NUMBER],
        )
        cursor.execute("ANALYZE")


def travel(queryset):
    return payloads.loads(payloads.dumps(queryset, "it", Arguments()), Arguments(paged=True))


def measure(logic, key):
    """Return the work of a batch: steps of SQLite's machine, or pages that PostgreSQL looks at."""
    if connection.vendor == "sqlite":
        steps = [0]

        def count():
            steps[0] += 1

        connection.connection.set_progress_handler(count, 1)
        try:
            entities, next_key = logic.getBatchOfData(None, key)
        finally:
            connection.connection.set_progress_handler(None, 0)
        return len(entities), next_key, steps[0]
    with CaptureQueriesContext(connection) as captured:
        entities, next_key = logic.getBatchOfData(None, key)
    pages = 0
    with connection.cursor() as cursor:
        for query in captured:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query["sql"].replace("%", "%%"), ())
            [[plan]] = cursor.fetchone()
            plan = plan if isinstance(plan, dict) else simplejson.loads(plan)
            pages += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return len(entities), next_key, pages


@pytest.mark.parametrize(
    "make",
    [
        Event.objects.all,
        lambda: Event.objects.filter(kind=3),
        lambda: Event.objects.filter(label__endswith="4", flag=False),
        lambda: Event.objects.exclude(kind=None).distinct(),
        lambda: Parcel.objects.filter(kind=3),
    ],
)
@pytest.mark.parametrize("order", ["pk", "kind"])
def test_batches_cost_the_same_everywhere(many, make, order):
    queryset = make()
    logic = ModelLogic(travel(queryset), order, batch_size=SIZE)
    assert logic.count() == queryset.count()
    ordered = queryset.order_by(order, "pk").exclude(kind=None)
    count = ordered.count()
    costs = []
    for place in (0, count // 3, count // 2, count - 2 * SIZE):
        number, next_key, cost = measure(logic, logic.get_key(ordered[place]))
        assert number == SIZE
        assert next_key is not None
        costs.append(cost)
    assert max(costs) <= 3 * costs[0], costs
    # A look at each row would take far more.
    assert max(costs) < (NUMBER if connection.vendor == "sqlite" else NUMBER / 10), costs
