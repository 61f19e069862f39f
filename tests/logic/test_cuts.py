"""Cuts: the key behind so many rows, and which of two keys comes first, whatever the field."""

from __future__ import annotations

import itertools

import pytest

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.cuts import count_between, find_key_behind, is_before
from soc_tasks.logic.plans import Source
from tests.specimen.models import Badge, Entry
from tests.specimen.rows import make_entries, walk

pytestmark = pytest.mark.django_db

FIELDS = ["pk", "code", "alias", "title", "remark", "count", "size", "price", "moment", "token", "flag", "program"]


def make_source(logic, filter=None):
    return Source(logic=logic, filter=filter, order=None, start_key=None, batch_size=None)


def keys_of(logic, filter=None):
    """Return the keys of all entities in their order."""
    keys, key = [], None
    while True:
        [entity], following = logic.getBatchOfData(filter, key, 1)
        keys.append(logic.get_key(entity))
        if following is None:
            return keys
        key = following


@pytest.mark.parametrize("field", FIELDS)
def test_the_key_behind_so_many(field):
    make_entries(24)
    logic = ModelLogic(Entry.objects.prefetch_related("tags").select_for_update(), field, batch_size=5)
    source, keys = make_source(logic), keys_of(ModelLogic(Entry, field))
    for start, end in [(None, None), (None, keys[20]), (keys[3], None), (keys[3], keys[19]), (keys[7], keys[8])]:
        first, last = keys.index(start) if start else 0, keys.index(end) if end else 24
        assert count_between(source, start, end) == last - first
        for number in (0, 1, 2, 4, 5, 6, 15, 16, 17, 23, 24, 25):
            wanted = keys[first + number] if first + number < last else None
            assert find_key_behind(source, start, end, number) == wanted


@pytest.mark.parametrize("field", FIELDS)
def test_parts_hold_every_row_once(field):
    make_entries(24)
    logic = ModelLogic(Entry, field, batch_size=5)
    whole = walk(logic)
    for number in range(1, 24):
        cut = find_key_behind(make_source(logic), None, None, number)
        first, second = walk(logic, end_key=cut), walk(logic, cut)
        assert len(first) == number
        assert first + second == whole


def test_a_filter_counts():
    make_entries(60)
    logic = ModelLogic(Entry.objects.filter(flag=True), "title")
    source, keys = make_source(logic, {"count__gt": 0}), keys_of(logic, {"count__gt": 0})
    assert count_between(source, None, None) == len(keys)
    assert find_key_behind(source, keys[1], None, 2) == keys[3]


@pytest.mark.parametrize("field", FIELDS)
def test_what_comes_first_wherever_the_keys_lie(field):
    make_entries(10)
    logic = ModelLogic(Entry, field)
    source, keys = make_source(logic), keys_of(logic)
    for (one, key), (other, end) in itertools.product(enumerate(keys), repeat=2):
        assert is_before(source, key, end) == (one < other)
    for number, end in enumerate(keys):
        assert is_before(source, None, end) == (number > 0)


@pytest.mark.parametrize("field", ["title", "size", "program", "flag"])
def test_where_a_value_begins_comes_before_its_rows(field):
    make_entries(16)
    logic = ModelLogic(Entry, field)
    source, keys = make_source(logic), keys_of(logic)
    values = list(dict.fromkeys(getattr(e, logic.order_field) for e in Entry.objects.all()))
    entries = {key: logic.getBatchOfData(None, key, 1)[0][0] for key in keys}
    for value in values:
        begin = logic.get_key_at(value)
        first = next(n for n, key in enumerate(keys) if getattr(entries[key], logic.order_field) == value)
        for number, key in enumerate(keys):
            assert is_before(source, key, begin) == (number < first)
            assert is_before(source, begin, key) == (number > first)


def test_text_is_compared_by_the_database():
    """To its collation "a" and "A" are one value, and the primary key tells them apart."""
    for number, label in enumerate(["a", "A", "b", "B", None, "a", None]):
        Badge.objects.create(name=f"n{number}", label=label)
    logic = ModelLogic(Badge, "label")
    source, keys = make_source(logic), keys_of(logic)
    for (one, key), (other, end) in itertools.product(enumerate(keys), repeat=2):
        assert is_before(source, key, end) == (one < other)


def test_rows_that_are_gone_and_those_the_filter_leaves_out():
    make_entries(16)
    logic = ModelLogic(Entry.objects.filter(flag=True))
    source, keys = make_source(logic), keys_of(ModelLogic(Entry))
    assert is_before(source, keys[2], keys[3])
    Entry.objects.filter(pk=logic.getBatchOfData(None, keys[2], 1)[0][0].pk).delete()
    assert is_before(source, keys[0], keys[9])
    Entry.objects.all().delete()
    assert not is_before(source, keys[0], keys[9])
