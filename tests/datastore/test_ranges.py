"""`datastore_key_ranges` on both editions: complete, disjoint, even; from samples, or from a pass over the keys."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from soc_tasks import DatastoreLogic
from soc_tasks.logic.sharding import datastore_key_ranges
from tests.datastore.rows import parts, put, walk
from tests.emulators import on_every_edition
from tests.specimen.models import Row

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def towns(kinds):
    """Put 1,500 towns under ids and names, in 20 countries, with moments of three to a minute."""
    rows = {
        (i + 1 if i % 3 else f"town {i:04}"): {"country": i % 20, "at": START + timedelta(minutes=i // 3)}
        for i in range(1500)
    }
    put(kinds, "Town", rows)
    return rows


def shards(logic, count, **options):
    """Return what each shard gets."""
    filter, order = options.get("filter"), options.get("order")
    ranges = logic.find_key_ranges(count, **options)
    assert ranges[0][0] is None
    assert ranges[-1][1] is None
    assert all(end == start is not None for (_, end), (start, _) in pairwise(ranges))
    return [parts(walk(logic, 500, filter=filter, order=order, start_key=start, end_key=end)) for start, end in ranges]


@on_every_edition
def test_shards_are_complete_disjoint_and_even(kinds, towns):
    found = shards(DatastoreLogic("Town", kinds), 5)
    assert len(found) == 5
    whole = [part for shard in found for part in shard]
    assert whole == sorted(towns, key=lambda part: (isinstance(part, str), part))
    assert all(150 <= len(shard) <= 480 for shard in found), [len(shard) for shard in found]


@on_every_edition
@pytest.mark.parametrize("order", ["at", "country"])
def test_shards_of_a_property(kinds, towns, order):
    found = shards(DatastoreLogic("Town", kinds, order_field=order), 4)
    assert len(found) == 4
    assert sorted(map(str, (part for shard in found for part in shard))) == sorted(map(str, towns))
    assert all(225 <= len(shard) <= 525 for shard in found)


@on_every_edition
def test_shards_of_what_is_filtered(kinds, towns):
    found = shards(DatastoreLogic("Town", kinds), 3, filter={"country": 7})
    assert sorted(map(str, (part for shard in found for part in shard))) == sorted(
        str(part) for part in towns if towns[part]["country"] == 7
    )
    assert all(15 <= len(shard) <= 35 for shard in found)


@on_every_edition
def test_few_entities_or_none(kinds):
    logic = DatastoreLogic("Few", kinds)
    assert logic.find_key_ranges(8) == [(None, None)]
    put(kinds, "Few", {2: {}, "a": {}, 11: {}})
    assert shards(logic, 8) == [[2], [11], ["a"]]
    assert shards(logic, 2) == [[2], [11, "a"]]
    put(kinds, "Same", {i: {"value": 5} for i in range(1, 9)})
    assert shards(DatastoreLogic("Same", kinds, order_field="value"), 4) == [list(range(1, 9))]


@on_every_edition
def test_names_that_editions_sort_differently_are_no_bounds(kinds):
    names = [*(f"\U0001f600 {i}" for i in range(20)), *(f"\uff21 {i}" for i in range(20)), "a", "b", "c"]
    put(kinds, "Odd", {name: {} for name in names})
    found = shards(DatastoreLogic("Odd", kinds), 4)
    assert sorted(name for shard in found for name in shard) == sorted(names)


@on_every_edition
def test_children_are_in_the_ranges_of_their_parents(kinds):
    parents = put(kinds, "School", {i: {} for i in range(1, 7)})
    for parent in parents:
        put(kinds, "Pupil", {i: {} for i in range(1, 30)}, parent=parent)
    logic = DatastoreLogic("Pupil", kinds)
    found = shards(logic, 3)
    assert sum(map(len, found)) == 174
    assert all(len(shard) in range(40, 80) for shard in found)
    # Bounds may be keys of other kinds.
    ranges = logic.find_key_ranges(2, getter=lambda query, count: [(None, parents[3]), (parents[3], None)])
    (low, middle), _ = ranges
    assert low is None
    assert {entity.key.parent.id for entity in walk(logic, 100, end_key=middle)} == {1, 2, 3}


@on_every_edition
def test_random_keys_of_ones_own(kinds, towns):
    asked = []

    def random_keys(query, shard_count):
        asked.append((query.kind, shard_count))
        return [kinds.key("Town", "town 0600"), 500, 1000, "town 0300"]

    getter = functools.partial(datastore_key_ranges, random_keys_getter=random_keys)
    found = getter(kinds.query(kind="Town"), 4)
    bounds = [kinds.key("Town", part) for part in (1000, "town 0300", "town 0600")]
    assert found == list(zip([None, *bounds], [*bounds, None], strict=True))
    assert len(shards(DatastoreLogic("Town", kinds), 4, getter=getter)) == 4
    assert asked == [("Town", 4)] * 2
    # Too few: all keys are gone through.
    assert len(getter(kinds.query(kind="Town"), 5)) == 5
    with pytest.raises(ValueError, match="random_keys_getter divides by keys"):
        getter(kinds.query(kind="Town", order=["at"]), 4)
    with pytest.raises(ValueError, match="Key ranges ascend"):
        datastore_key_ranges(kinds.query(kind="Town", order=["-at"]), 4)


@on_every_edition
def test_ranges_of_ones_own_are_checked(kinds, towns):
    logic = DatastoreLogic("Town", kinds)

    def divide(*ranges, **options):
        return logic.find_key_ranges(3, getter=lambda query, count: list(ranges), **options)

    assert divide((500, None), (None, 500)) == [(None, logic.get_key_at(500)), (logic.get_key_at(500), None)]
    assert divide((2, "x")) == [(logic.get_key_at(2), logic.get_key_at("x"))]
    for ranges, message in (
        ([], "leave all entities out"),
        ([(None, 500), (600, None)], "leave a gap"),
        ([(None, 600), (500, None)], "overlap"),
        ([(3, None)], "leave entities out"),
        ([(None, "town 1000")], "leave entities out"),
        ([("a", 5), (None, "a"), (5, None)], "overlap"),
    ):
        with pytest.raises(ValueError, match=message):
            divide(*ranges)
    with pytest.raises(TypeError, match="list of"):
        divide(5)
    with pytest.raises(ValueError, match="leave a gap"):
        divide((None, START), (START + timedelta(1), None), order="at")


@pytest.mark.django_db
def test_querysets_of_django_are_divided_as_well():
    Row.objects.bulk_create(Row(hits=0) for _ in range(100))
    pks = list(Row.objects.order_by("pk").values_list("pk", flat=True))
    ranges = datastore_key_ranges(Row.objects.order_by("pk"), 4)
    assert len(ranges) == 4
    sample = functools.partial(
        datastore_key_ranges, random_keys_getter=lambda rows, count: [pks[60], pks[10], 10**9, pks[30]]
    )
    assert sample(Row.objects.all(), 3) == [(None, pks[30]), (pks[30], pks[60]), (pks[60], None)]


@on_every_edition
def test_keys_of_more_than_one_message_are_gone_through(kinds):
    # gRPC takes 4 MiB, and Firestore's emulator answers with all it is asked for at once.
    names = [f"{number:04}" + "x" * 1450 for number in range(3100)]
    put(kinds, "Town", {name: {} for name in names})
    logic = DatastoreLogic("Town", kinds)
    ranges = datastore_key_ranges(logic.query, 4)
    assert (ranges[0][0], ranges[-1][1]) == (None, None)
    bounds = [names.index(start.name) for start, _ in ranges[1:]]
    assert bounds == sorted(set(bounds))
    assert len(bounds) == 3
    assert logic.count() == 3100
