"""Posted filters: the model's own columns, listed lookups, values of the column's type; nothing else."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
import simplejson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.filters import check_posted_filter
from tests.specimen.models import Entry, Program, Seat, Student
from tests.specimen.rows import make_entries

TOKEN = uuid.UUID(int=1 << 64)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("posted", "checked"),
    [
        ({}, {}),
        ({"count": 7}, {"count__exact": 7}),
        ({"count": "7"}, {"count__exact": 7}),
        ({"count__exact": 7.0}, {"count__exact": 7}),
        ({"pk__gte": 1, "id__lt": 9}, {"id__gte": 1, "id__lt": 9}),
        ({"pk__in": [1, "2"]}, {"id__in": [1, 2]}),
        ({"pk__in": []}, {"id__in": []}),
        ({"count__range": [0, 7]}, {"count__range": [0, 7]}),
        ({"program__range": [3, "5"]}, {"program_id__gte": 3, "program_id__lte": 5}),
        ({"program": 3}, {"program_id__exact": 3}),
        ({"program_id__in": [3]}, {"program_id__in": [3]}),
        ({"program__isnull": True}, {"program_id__isnull": True}),
        ({"program": None}, {"program_id__isnull": True}),
        ({"title__gt": "a"}, {"title__gt": "a"}),
        ({"rating__lte": "0.5"}, {"rating__lte": 0.5}),
        ({"price": "1.10"}, {"price__exact": Decimal("1.10")}),
        ({"price__gt": 1.1}, {"price__gt": Decimal("1.1")}),
        ({"day": "2024-02-29"}, {"day__exact": date(2024, 2, 29)}),
        ({"moment__lt": "2024-07-01T00:00:00Z"}, {"moment__lt": datetime(2024, 7, 1, tzinfo=UTC)}),
        ({"moment__lt": "2024-07-01T00:00:00"}, {"moment__lt": datetime(2024, 6, 30, 22, tzinfo=UTC)}),
        ({"moment__lt": date(2024, 7, 1)}, {"moment__lt": datetime(2024, 6, 30, 22, tzinfo=UTC)}),
        ({"slot": "12:30"}, {"slot__exact": time(12, 30)}),
        ({"span__gt": "1 00:00:00"}, {"span__gt": timedelta(days=1)}),
        ({"token": str(TOKEN)}, {"token__exact": TOKEN}),
        ({"token__in": [TOKEN, TOKEN.hex]}, {"token__in": [TOKEN, TOKEN]}),
        ({"flag": True}, {"flag__exact": True}),
        ({"flag": "False"}, {"flag__exact": False}),
    ],
)
def test_allowed(posted, checked):
    make_entries(5)
    assert check_posted_filter(Entry, posted) == checked
    logic = ModelLogic(Entry)
    assert logic.check_filter(posted) == checked
    logic.getBatchOfData(checked)


@pytest.mark.parametrize("given", [None, "count", ["count"], [("count", 1)], 7, {"count"}])
def test_only_objects(given):
    with pytest.raises(ValueError, match="must be an object of lookups"):
        check_posted_filter(Entry, given)


@pytest.mark.parametrize(
    "key",
    [
        *("", "_", "__", "count__", "__exact", "nothing", "_connector", "_negated", "program__name", "program__pk"),
        *("tags", "tags__name", "comments", "comments__text", "comment", "objects", "program__exact__in", "pk__pk"),
        *("title__regex", "title__iregex", "title__startswith", "title__contains", "title__iexact", "day__year"),
        *("facts__secret", "count__isnull__exact", "Count", "count ", 7, None, ("count", 1)),
    ],
)
def test_only_own_columns_and_listed_lookups(key):
    with pytest.raises(ValueError, match=r"not allowed in a posted filter\. Allowed are .*isnull"):
        check_posted_filter(Entry, {key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("count", value) for value in ("x", "", [], {}, 1.5, "1.5", 2**70, -(2**70), float("inf"), float("nan"))),
        *(("count__gt", None), ("count__in", 1), ("count__in", "12"), ("count__in", [None]), ("count__in", [[1]])),
        *(("count__in", [2**70]), ("count__in", [1] * 1001), ("count__range", [1]), ("count__range", [1, 2, 3])),
        *(("count__range", 1), ("count__range", [1, 2**70]), ("count__isnull", 1), ("count__isnull", None)),
        *(("title", ["a"]), ("title", {"a": 1}), ("title", b"a"), ("title", "\ud800"), ("title", object())),
        *(("program", "x"), ("program", 2**70), ("program", Program(pk=1)), ("count", Entry.objects.values("pk"))),
        *(("price", "x"), ("price", "NaN"), ("price", "inf"), ("rating", "x"), ("token", "x"), ("flag", "maybe")),
        *(("day", "2024-02-30"), ("day", "soon"), ("slot", "25:00"), ("span", "long"), ("moment", "soon")),
        *(("moment", "0001-01-01T00:00:00+05:00"), ("moment", "9999-12-31T23:59:59-05:00"), ("facts", "a")),
        *(("blob", "YQ=="), ("count", "9" * 10_000)),
    ],
)
def test_values_that_the_column_cannot_take(key, value):
    with pytest.raises(ValueError, match=r"specimen\.Entry\.\w+") as caught:
        check_posted_filter(Entry, {key: value})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "given",
    [
        {"pk": 1, "id": 2},
        {"count": 1, "count__exact": 1},
        {"program": 1, "program_id": 2},
        {"size": None, "size__isnull": False},
    ],
)
def test_no_condition_displaces_another(given):
    with pytest.raises(ValueError, match="twice"):
        check_posted_filter(Entry, given)


def test_inherited_and_composite_keys():
    assert check_posted_filter(Student, {"name": "a", "pk": 1}) == {"name__exact": "a", "person_ptr_id__exact": 1}
    assert check_posted_filter(Seat, {"row": 1}) == {"row__exact": 1}
    with pytest.raises(ValueError, match="not allowed"):
        check_posted_filter(Seat, {"pk": [1, 2]})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("0123456789-:T. Z+", max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [field.name for field in Entry._meta.concrete_fields]
LOOKUPS = ["exact", "in", "gt", "gte", "lt", "lte", "range", "isnull"]


@pytest.mark.django_db
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FIELDS), st.sampled_from(LOOKUPS), JSON_VALUES)
def test_whatever_is_posted_the_database_takes_it_or_it_is_refused(field, lookup, value):
    logic = ModelLogic(Entry)
    try:
        checked = logic.check_filter({f"{field}__{lookup}": value})
    except ValueError:
        return
    logic.getBatchOfData(checked)


@pytest.mark.django_db
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([name for name in FIELDS if name not in ("blob", "facts", "mass")]), JSON_VALUES, JSON_VALUES)
def test_whatever_is_given_as_a_key_the_database_takes_it_or_it_is_refused(field, value, pk):
    logic = ModelLogic(Entry, field)
    parts = [value] if field == "id" else [Entry._meta.get_field(field).attname, value, pk]
    for key in (simplejson.dumps(parts, allow_nan=True), simplejson.dumps(parts[:2], allow_nan=True)):
        try:
            logic.getBatchOfData(key)
        except ValueError as error:
            refused = str(error)
        else:
            continue
        assert "is no key of" in refused
