"""The cost of a batch does not grow with the table; where an index is missing for that, it is said."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.db.models import Count, F

from soc_tasks.logic.batches import ModelLogic
from tests.plans import Watch
from tests.specimen.models import Badge, Entry, Event, Parcel, Student, Ticket

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="counts the steps of SQLite's virtual machine")

NUMBER = 20_000
SIZE = 100
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)"


@pytest.fixture
def many(db):
    """20,000 rows with five values and NULLs, as the database knows by its statistics."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO specimen_event (kind, label, flag) {NUMBERS}"
            " SELECT nullif(i %% 6, 0), 'label ' || (i %% 5), i %% 2 FROM n",
            [NUMBER],
        )
        cursor.execute(
            f"INSERT INTO specimen_parcel (id, kind) {NUMBERS}"
            " SELECT 'p' || (i * 7919 %% 100003), nullif(i %% 6, 0) FROM n",
            [NUMBER],
        )
        cursor.execute("ANALYZE")


def get_checkpoints(logic):
    """Return keys at the beginning, amid the ties, at borders between values, among the NULLs and near the end."""
    ordered = logic.model.objects.order_by(*get_order(logic))
    count = ordered.count()
    places = [1, count // 3, count // 2, *range(count // 6 - 50, count, count // 6), count - 2 * SIZE]
    return [None, *(logic.get_key(ordered[place]) for place in sorted(places))]


def get_order(logic):
    """Return the logic's order in Django's words."""
    field = F(logic.order_field.removeprefix("-"))
    if logic.order_field[0] == "-":
        return [field.desc(nulls_last=True), "-pk"]
    return [field.asc(nulls_last=True), "pk"]


@pytest.mark.parametrize(
    ("model", "order"),
    [
        *((Event, order) for order in ("pk", "-pk", "kind", "-kind", "label", "-label", "flag", "-flag")),
        *((Parcel, order) for order in ("pk", "-pk", "kind", "-kind")),
    ],
)
@pytest.mark.parametrize("bounded", [False, True], ids=["open", "bounded"])
def test_batches_cost_the_same_everywhere(many, model, order, bounded):
    logic = ModelLogic(model, order, batch_size=SIZE)
    assert logic.missing_index() is None
    keys = get_checkpoints(logic)
    end_key = keys[-1] if bounded else None
    costs = []
    for key in keys[:-1]:
        with Watch() as watch:
            entities, _ = logic.getBatchOfData(None, key, end_key=end_key)
        assert len(entities) == SIZE
        assert len(watch.statements) <= 3
        plan = "\n".join(watch.explain())
        assert not re.search(r"TEMP B-TREE|MULTI-INDEX", plan), plan
        assert not re.search(r"^SCAN \w+$", plan, re.MULTILINE) or order.endswith("pk"), plan
        # Where a key or an end is given nothing may be scanned at all.
        assert key is None or "SCAN" not in plan, plan
        costs.append(watch.steps)
    assert max(costs) <= 3 * costs[0], costs


def test_whole_values_are_cut_off_at_the_same_cost(many):
    logic = ModelLogic(Event, "kind", batch_size=SIZE)
    costs = []
    for start, end in [(1, 2), (3, 4), (5, None)]:
        with Watch() as watch:
            entities, _ = logic.getBatchOfData(logic.get_key_at(start), end_key=logic.get_key_at(end))
        assert {event.kind for event in entities} == {start}
        assert "SCAN" not in "\n".join(watch.explain())
        costs.append(watch.steps)
    assert max(costs) <= 3 * min(costs), costs


@pytest.mark.parametrize(
    ("model", "order", "bounds"),
    [
        (Event, "pk", {"pk__gte": 1, "pk__lte": NUMBER}),
        (Event, "-pk", {"pk__gte": 1, "pk__lte": NUMBER}),
        (Parcel, "pk", {"pk__gt": "p", "pk__lt": "q"}),
    ],
)
@pytest.mark.parametrize("shape", ["source", "filter"])
def test_bounds_of_ones_own_are_no_beginning_of_each_batch(many, model, order, bounds, shape):
    rows = model.objects.filter(**bounds) if shape == "source" else model.objects.all()
    logic = ModelLogic(rows, order, batch_size=SIZE)
    costs = []
    for key in get_checkpoints(logic)[:-1]:
        with Watch() as watch:
            entities, _ = logic.getBatchOfData(bounds if shape == "filter" else None, key)
        assert len(entities) == SIZE
        costs.append(watch.steps)
    assert max(costs) <= 4 * costs[0], costs


@pytest.mark.parametrize(
    ("model", "order", "bounds"),
    [
        (Event, "kind", (1, 5)),
        (Event, "-kind", (1, 5)),
        (Event, "label", ("label 0", "label 9")),
        (Parcel, "kind", (1, 5)),
    ],
)
def test_bounds_of_ones_own_around_ties_make_no_batch_sort_them(many, model, order, bounds):
    """By its statistics SQLite takes both bounds together for rarer than one value of five."""
    rows = model.objects.filter(**{f"{order.removeprefix('-')}__range": bounds})
    logic = ModelLogic(rows, order, batch_size=SIZE)
    ordered = rows.order_by(*get_order(logic))
    count = ordered.count()
    costs = []
    for place in (1, count // 3, count // 2, count - 2 * SIZE):
        key = logic.get_key(ordered[place])
        with Watch() as watch:
            entities, _ = logic.getBatchOfData(key)
        assert [entity.pk for entity in entities] == [row.pk for row in ordered[place : place + SIZE]]
        assert "TEMP B-TREE" not in "\n".join(watch.explain())
        costs.append(watch.steps)
    assert max(costs) <= 3 * costs[0], costs


def test_what_is_truly_rare_is_looked_up_before_ties(many):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE specimen_event SET label = 'rare ' || (id %% 1000)", ())
        cursor.execute("ANALYZE")
    # Twenty rows, all of one flag.
    rows = Event.objects.filter(label="rare 7")
    logic = ModelLogic(rows, "flag", batch_size=5)
    key = logic.get_key(rows.order_by("flag", "pk")[10])
    with Watch() as watch:
        entities, _ = logic.getBatchOfData(key)
    assert len(entities) == 5
    assert watch.steps < 1000


def test_empty_ranges_cost_next_to_nothing(many):
    logic = ModelLogic(Event, "kind", batch_size=SIZE)
    pk = Event.objects.filter(kind=3).values_list("pk", flat=True)[NUMBER // 20]
    key = logic.get_key(Event(pk=pk, kind=3))
    with Watch() as watch:
        assert logic.getBatchOfData(key, end_key=key) == ([], None)
    assert watch.steps < 200


@pytest.mark.parametrize("order", ["pk", "kind", "-label"])
def test_aggregates_and_joins_to_many_cost_the_same_everywhere(many, order):
    logic = ModelLogic(Event.objects.annotate(n=Count("kind")), order, batch_size=SIZE)
    costs = []
    for key in get_checkpoints(logic)[:-1]:
        with Watch() as watch:
            logic.getBatchOfData(None, key)
        costs.append(watch.steps)
    assert max(costs) <= 3 * costs[0], costs


@pytest.mark.parametrize(
    ("model", "order"),
    [
        (Entry, "pk"),
        (Entry, "-id"),
        (Entry, "code"),  # unique, never NULL
        (Entry, "alias"),  # unique: an index, with the rowid behind it
        (Entry, "count"),
        (Entry, "program"),  # a foreign key has an index
        (Entry, "title"),
        (Entry, "-title"),
        (Entry, "day"),  # both fall: read backwards
        (Entry, "-day"),
        (Ticket, "pk"),
        (Ticket, "kind"),
        (Badge, "pk"),
        (Student, "id"),
    ],
)
def test_indexes_that_are_there(model, order):
    assert ModelLogic(model, order).missing_index() is None


@pytest.mark.parametrize(
    ("model", "order", "fields"),
    [
        (Entry, "remark", "['remark', 'id']"),
        (Entry, "size", "['size', 'id']"),  # a partial index holds some rows only
        (Entry, "slot", "['slot', 'id']"),  # the index falls, the rowid behind it rises
        (Ticket, "grade", "['grade', 'id']"),  # the rowid behind it is not the primary key
        (Badge, "-label", "['label', 'name']"),
        (Student, "year", "['year', 'person_ptr']"),
    ],
)
def test_indexes_that_are_missing(model, order, fields):
    said = ModelLogic(model, order).missing_index()
    assert f"models.Index(fields={fields}" in said
    assert ModelLogic(model).missing_index(order) == said


def test_no_index_serves_a_parents_field():
    assert "order_field='pk'" in ModelLogic(Student, "name").missing_index()
