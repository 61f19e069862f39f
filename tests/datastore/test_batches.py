"""`DatastoreLogic` on both editions: each entity once, in the order of keys or of a property."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from google.cloud import datastore
from google.cloud.datastore.helpers import GeoPoint
from google.cloud.datastore.query import PropertyFilter

from soc_tasks import DatastoreLogic
from tests.datastore.rows import parts, put, walk
from tests.emulators import on_every_edition

pytestmark = on_every_edition


@pytest.fixture
def students(kinds):
    """Put 40 students: ids and names, three programs, ages with ties, and two without an age."""
    rows = {(i + 1 if i % 4 else f"name {i:02}"): {"program": i % 3, "age": 20 + i % 5} for i in range(38)}
    rows |= {1000: {"program": 1}, 1001: {"program": 2, "age": None}}
    put(kinds, "Student", rows)
    put(kinds, "Teacher", {1: {"age": 50}})
    return rows


def by_key(rows):
    """Ids before names."""
    return sorted(rows, key=lambda part: (isinstance(part, str), part))


def by_age(rows, *, falls=False):
    """Ties by key; what has no age is not there, and None comes first."""
    aged = [part for part in by_key(rows) if "age" in rows[part]]
    return sorted(aged, key=lambda part: -1 if rows[part]["age"] is None else rows[part]["age"], reverse=falls)


@pytest.mark.parametrize("size", [7, 40, 1000])
def test_each_entity_comes_once_in_the_order_of_keys(kinds, students, size):
    logic = DatastoreLogic("Student", kinds)
    assert parts(walk(logic, size)) == by_key(students)
    assert logic.count() == 40


def test_the_entities_are_those_of_the_client(kinds, students):
    (first, *_), _ = DatastoreLogic("Student", kinds).getBatchOfData()
    assert isinstance(first, datastore.Entity)
    assert (first.key, dict(first)) == (kinds.key("Student", 2), {"program": 1, "age": 21})


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("order", ["age", "-age"])
def test_ties_of_a_property_come_once_and_by_key(kinds, students, size, order):
    logic = DatastoreLogic("Student", kinds, order_field=order)
    found = parts(walk(logic, size))
    ages = [students[part]["age"] for part in found]
    assert sorted(map(str, found)) == sorted(map(str, by_age(students)))
    numbers = [-1 if age is None else age for age in ages]
    assert numbers == sorted(numbers, reverse=order == "-age")
    for age in set(ages):
        tied = [part for part in found if students[part]["age"] == age]
        assert tied == by_key(tied)


VALUES = [
    None,
    -5,
    1,
    2,
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    False,
    True,
    "a",
    b"b",
    "Ä",
    float("-inf"),
    -0.0,
    1.5,
    float("inf"),
    float("nan"),
    GeoPoint(1.5, -2),
]


@pytest.mark.parametrize("size", [3])
@pytest.mark.parametrize("order", ["value", "-value"])
@pytest.mark.parametrize("projection", [(), ("__key__",), ("value",), ("more", "value")])
def test_values_of_every_type_are_gone_through(kinds, size, order, projection):
    values = [*VALUES, kinds.key("Student", 5), kinds.key("Student", "x")]
    put(kinds, "Value", {i + 1: {"value": values[i // 2], "more": i} for i in range(2 * len(values))})
    query = kinds.query(kind="Value", projection=projection)
    found = walk(DatastoreLogic(query, order_field=order), size)
    expected = list(range(1, 2 * len(values) + 1))
    if order == "-value":
        expected = [expected[i ^ 1] for i in range(len(expected))][::-1]
    assert parts(found) == expected
    assert {tuple(entity) for entity in map(sorted, found)} == {
        (): {("more", "value")}, ("__key__",): {()}, ("value",): {("value",)}, ("more", "value"): {("more", "value")},
    }[projection]  # fmt: skip
    if "value" in projection:
        whole = list(query.fetch())
        expected = {entity.key: repr(entity["value"]) for entity in whole}
        assert all(isinstance(e["value"], GeoPoint) or repr(e["value"]) == expected[e.key] for e in found)


def test_embedded_properties_order(kinds):
    put(kinds, "House", {i: {"address": {"city": f"city {9 - i // 2}"}} for i in range(1, 10)})
    assert parts(walk(DatastoreLogic("House", kinds, order_field="address.city"), 2)) == [8, 9, 6, 7, 4, 5, 2, 3, 1]


def test_an_order_by_lists_is_refused(kinds):
    put(kinds, "Post", {i: {"tags": [i, i + 10]} for i in range(1, 5)})
    logic = DatastoreLogic("Post", kinds)
    with pytest.raises(ValueError, match="'tags', which holds lists"):
        logic.getBatchOfData(order="tags")
    query = kinds.query(kind="Post", projection=["tags"])
    with pytest.raises(ValueError, match="Leave the property out of the projection"):
        DatastoreLogic(query).getBatchOfData()


def test_keys_begin_where_the_entity_was(kinds, students):
    logic = DatastoreLogic("Student", kinds, batch_size=5)
    _, key = logic.getBatchOfData()
    expected = by_key(students)
    assert parts(logic.getBatchOfData(key)[0]) == expected[5:10]
    kinds.delete(kinds.key("Student", expected[5]))
    assert parts(logic.getBatchOfData(key)[0]) == expected[6:11]
    student = kinds.get(kinds.key("Student", expected[7]))
    assert parts(logic.getBatchOfData(logic.get_key(student))[0]) == expected[7:12]
    end = logic.get_key_at(expected[9])
    assert parts(logic.getBatchOfData(None, key, end_key=end)[0]) == expected[6:9]


@pytest.mark.parametrize("order", ["age", "-age"])
def test_a_part_of_an_order(kinds, students, order):
    logic = DatastoreLogic("Student", kinds, order_field=order)
    rows = parts(walk(logic, 40))
    entities = {part: kinds.get(kinds.key("Student", part)) for part in rows}
    places = [0, 2, 9, 30]
    for start in places:
        for end in places:
            first, last = (logic.get_key(entities[rows[place]]) for place in (start, end))
            assert parts(walk(logic, 4, start_key=first, end_key=last)) == rows[start:end]
    low, high = logic.get_key_at(23 if order == "-age" else 21), logic.get_key_at(21 if order == "-age" else 23)
    assert {students[part]["age"] for part in parts(walk(logic, 4, start_key=low, end_key=high))} == (
        {22, 23} if order == "-age" else {21, 22}
    )


def test_equality_filters(kinds, students):
    logic = DatastoreLogic("Student", kinds)
    expected = [part for part in by_key(students) if students[part]["program"] == 1]
    assert parts(walk(logic, 4, filter={"program": 1})) == expected
    assert logic.count({"program": 1}) == len(expected)
    both = {"program": 1, "age": 22}
    assert parts(walk(logic, 1, filter=both)) == [part for part in expected if students[part].get("age") == 22]
    assert walk(logic, filter={"program": 9}) == []
    for order in ("age", "-age"):
        found = parts(walk(logic, 2, filter=both, order=order))
        assert found == [part for part in expected if students[part].get("age") == 22]
        found = parts(walk(logic, 2, filter={"program": 1}, order=order))
        assert found == [part for part in by_age(students) if part in expected] or order == "-age"
        assert sorted(map(str, found)) == sorted(str(part) for part in expected if "age" in students[part])


@pytest.mark.parametrize("order", ["age", "-age"])
def test_inequalities_on_the_property_that_orders(kinds, students, order):
    logic = DatastoreLogic("Student", kinds, order_field=order)
    for lookup, allowed in {
        "age__gt": {23, 24}, "age__gte": {22, 23, 24}, "age__lt": {None, 20, 21, 22}, "age__lte": {None, 20, 21, 22},
    }.items():  # fmt: skip
        limit = 22 if lookup in ("age__gte", "age__lte") else min(23, 22 + (lookup == "age__lt"))
        found = parts(walk(logic, 3, filter={lookup: limit}))
        assert {students[part]["age"] for part in found} == {a for a in allowed if lookup != "age__gt" or a > limit}
        assert len(found) == len(set(found)) == logic.count({lookup: limit})
    found = parts(walk(logic, 3, filter=[("age", ">", 20), ("age", "<", 23), ("program", "=", 1)]))
    assert sorted(map(str, found)) == sorted(
        str(part) for part in students if students[part].get("age") in (21, 22) and students[part]["program"] == 1
    )


def test_filters_by_dates_keys_and_references(kinds):
    program = put(kinds, "Program", {"gsoc": {}})[0]
    day, moment = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, 12, tzinfo=UTC)
    put(kinds, "Entry", {1: {"program": program, "at": day}, 2: {"program": None, "at": moment}, 3: {"at": moment}})
    logic = DatastoreLogic("Entry", kinds)
    assert parts(walk(logic, filter={"program": program})) == [1]
    assert parts(walk(logic, filter={"program": kinds.get(program)})) == [1]
    assert parts(walk(logic, filter={"program": None})) == [2]
    assert parts(walk(logic, filter={"at": date(2026, 5, 1)})) == [1]
    assert parts(walk(logic, filter={"at__gt": day}, order="at")) == [2, 3]
    assert parts(walk(logic, filter={"at": moment})) == [2, 3]
    assert parts(walk(logic, filter={"__key__": kinds.key("Entry", 2)})) == [2]
    with pytest.raises(TypeError, match="The filter on at: Datastore cannot compare by timedelta"):
        logic.getBatchOfData({"at": timedelta(1)})


def test_namespaces_are_worlds_of_their_own(kinds, students):
    other = f"{kinds.namespace}.other"
    put(kinds, "Student", {1: {"age": 1}, 2: {"age": 2}, 3: {}}, namespace=other)
    logic = DatastoreLogic("Student", kinds, namespace=other)
    for order in (None, "age"):
        found = walk(logic, 1, order=order)
        assert parts(found) == ([1, 2, 3] if order is None else [1, 2])
        assert {entity.key.namespace for entity in found} == {other}
    assert parts(walk(DatastoreLogic(kinds.query(kind="Student", namespace=other)), 1)) == [1, 2, 3]


def test_ancestors(kinds):
    parents = put(kinds, "School", {"a": {}, "b": {}})
    for parent in parents:
        put(kinds, "Student", {i: {"age": i % 3} for i in range(1, 9)}, parent=parent)
    put(kinds, "Student", {1: {"age": 1}})
    for source in (
        DatastoreLogic("Student", kinds, ancestor=parents[0]),
        DatastoreLogic(kinds.query(kind="Student", ancestor=parents[0])),
    ):
        for order in ("__key__", "age", "-age"):
            found = walk(source, 3, order=order)
            assert sorted(parts(found)) == list(range(1, 9))
            assert {entity.key.parent for entity in found} == {parents[0]}
    assert len(walk(DatastoreLogic("Student", kinds))) == 17


def test_queries_keep_what_they_say(kinds, students):
    query = kinds.query(kind="Student", order=["-age"])
    query.add_filter(filter=PropertyFilter("program", "=", 1))
    logic = DatastoreLogic(query)
    assert logic.order_field == "-age"
    found = walk(logic, 3, filter={"age__gt": 21})
    assert {(e["program"], e["age"]) for e in found} == {(1, 22), (1, 23), (1, 24)}
    query = kinds.query(kind="Student")
    query.keys_only()
    found = walk(DatastoreLogic(query), 9)
    assert parts(found) == by_key(students)
    assert not any(found)
    assert not query.order


def test_one_query_or_two_make_a_batch(kinds, students, monkeypatch):
    asked = []
    run = kinds._datastore_api.run_query

    def count(**arguments):
        asked.append(arguments["request"])
        return run(**arguments)

    monkeypatch.setattr(kinds._datastore_api, "run_query", count)
    logic = DatastoreLogic("Student", kinds)
    _, key = logic.getBatchOfData(batch_size=5)
    assert [request["query"].limit.value if hasattr(request["query"].limit, "value") else request["query"].limit
            for request in asked] == [6]  # fmt: skip
    asked.clear()
    _, key = logic.getBatchOfData(batch_size=20, order="age")
    assert len(asked) == 1
    # In the midst of ties: those that are left, and what comes behind them.
    logic.getBatchOfData(None, key, 20, order="age")
    assert len(asked) == 3
    # Where a value begins.
    _, key = logic.getBatchOfData(batch_size=1 + sum(row.get("age") == 20 for row in students.values()), order="age")
    logic.getBatchOfData(None, key, 5, order="age")
    assert len(asked) == 5
