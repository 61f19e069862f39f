"""What a context may hold: it comes back equal and of the same types, or is refused by the name of its place."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from django.utils.safestring import SafeString
from hypothesis import given, settings
from hypothesis import strategies as st

from soc_tasks import PayloadError, startTask
from soc_tasks.logic.payloads import dumps, loads
from tests.specimen.models import Tag

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
# To the second, as local mean times are: Python itself reads an offset of microseconds alone as none.
ZONES = st.none() | st.integers(-82_800, 82_800).map(lambda seconds: timezone(timedelta(seconds=seconds)))
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.binary(max_size=1750).map(lambda digits: int.from_bytes(digits, signed=True)),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.binary(max_size=20),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.times(timezones=ZONES),
    st.datetimes(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
KEYS = TEXT | st.sampled_from(["__soc__", "v", "tag", ""])
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=12,
)
LOOK_ALIKES = [
    {"__soc__": "decimal", "v": "1"},
    {"__soc__": "dict", "v": {"__soc__": "dict", "v": {}}},
    {"__soc__": None},
    {"__soc__": {"__soc__": "set", "v": []}, "v": [1]},
    {"v": 1},
    {"__soc__": "decimal", "v": "1", "w": 2},
    [{"__soc__": "unknown"}],
    "__soc__",
    '{"__soc__":"decimal","v":"1"}',
]


def shape(value):
    """What equality does not see: types, the sign of zero, and the zone of a moment."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list() | tuple():
            return type(value), [shape(item) for item in value]
        case set() | frozenset():
            return type(value), len(value)
        case float():
            return float, math.copysign(1, value)
        case datetime() | time():
            return type(value), value.utcoffset()
    return type(value)


@settings(deadline=None)
@given(VALUES)
def test_whatever_is_supported_comes_back_equal_and_of_the_same_types(value):
    text = dumps(value)
    again = loads(text)
    assert again == value
    assert shape(again) == shape(value)
    assert text.isascii()
    json.loads(text)


@pytest.mark.parametrize("value", LOOK_ALIKES, ids=repr)
def test_what_looks_like_a_tag_stays_data(value):
    assert loads(dumps(value)) == value
    assert loads(dumps([value, {"x": value}])) == [value, {"x": value}]


@pytest.mark.parametrize("value", LOOK_ALIKES, ids=repr)
def test_what_looks_like_a_tag_travels_in_a_context(task_queues, site_calls, value):
    context = {"__soc__": value, "v": value}
    startTask("behave", context)
    task_queues.process_task_queues()
    assert site_calls[0][1].task.context == context


class Colour(str, enum.Enum):  # noqa: UP042 - as sites wrote it before StrEnum
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (SafeString("<b>"), "<b>"),
        (OrderedDict(a=1), {"a": 1}),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        ([Colour.RED], ["red"]),
    ],
    ids=repr,
)
def test_subclasses_travel_as_the_plain_value_that_they_equal(task_queues, site_calls, value, wanted):
    startTask("behave", {"x": value, "y": [1, value]})
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert request.task.context == {"x": wanted, "y": [1, wanted]}
    if isinstance(value, str):
        assert request.POST["x"] == wanted


def nest(depth, make, leaf=None):
    value = leaf
    for _ in range(depth):
        value = make(value)
    return value


def a_closure():
    seen = []
    return lambda: seen


class Plain:
    def method(self):
        return None


MAKERS = {
    "lists": lambda inner: [inner],
    "dicts": lambda inner: {"k": inner},
    "tuples": lambda inner: (inner,),
    "look-alikes": lambda inner: {"__soc__": inner, "v": 0},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("leaf", [None, 1, "x", Decimal(1), timedelta(1)], ids=repr)
def test_32_levels_travel_and_33_do_not(make, leaf):
    assert loads(dumps(nest(32, make, leaf))) == nest(32, make, leaf)
    with pytest.raises(PayloadError, match="32"):
        dumps(nest(33, make, leaf))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda: None, ""),
        (a_closure(), ""),
        (Plain().method, ""),
        (Plain, ""),
        (Plain(), ""),
        (print, ""),
        (object(), ""),
        (Tag(name="x"), ""),
        ((i for i in ()), ""),
        (1j, ""),
        (Fraction(1, 3), ""),
        (namedtuple("Pair", "a b")(1, 2), ""),
        (bytearray(b"x"), ""),
        (float("nan"), ""),
        (float("inf"), ""),
        (-float("inf"), ""),
        (10**5000, ""),
        (-(10**5000), ""),
        ("\x00", ""),
        ("\ud800", ""),
        (["a", "\udfff"], "[1]"),
        (["a", "b\x00"], "[1]"),
        ([1, "\ud800"], "[1]"),
        ({"a": [1, (2, "\x00")]}, "['a'][1][1]"),
        ({"a": {"b": float("nan")}}, "['a']['b']"),
        ({"a": [0, 1, lambda: None]}, "['a'][2]"),
        ({1: "x"}, ""),
        ({"a": {None: 1}}, "['a']"),
        ({("a",): 1}, ""),
        ({"\x00": 1}, ""),
        ({"\ud800": 1}, ""),
        ({Plain()}, "[0]"),
        (nest(33, MAKERS["lists"]), "[0]" * 32),
        (nest(100_000, MAKERS["lists"]), "[0]" * 32),
    ],
    ids=lambda part: part if isinstance(part, str) and part.isprintable() else type(part).__name__,
)
def test_what_cannot_travel_is_refused_by_the_name_of_its_place(task_queues, value, place):
    with pytest.raises(PayloadError) as caught:
        startTask("behave", {"good": 1, "bad": value})
    assert isinstance(caught.value, TypeError)
    assert f"context['bad']{place}" in str(caught.value)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    "context", [{1: "x"}, {None: 1}, {b"a": 1}, {"\x00": 1}, {"a\ud800": 1}, [], [("a", 1)], "a=b", b"a=b", 5, {"a"}]
)
def test_what_is_no_dict_of_named_values_is_refused(task_queues, context):
    with pytest.raises(PayloadError, match="context"):
        startTask("behave", context)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1",
        '"x',
        "nul",
        "None",
        "'x'",
        "[1,]",
        "{1: 2}",
        "NaN",
        "-NaN",
        "Infinity",
        "-Infinity",
        "[1, NaN]",
        "1e999",
        "-1e999",
        "1" * 5000,
        "1" * 5000 + ".5",
        '{"a": 1, "a": 2}',
        '{"x": {"a": 1, "b": 2, "a": 1}}',
        "1 2",
        "{} x",
        "[]]",
        "null\x00",
        "\ufeffnull",
        "\xef\xbb\xbfnull",
        '"\ud800"',
        '"\\ud800"',
        '"\\u0000"',
        '"a\nb"',
        '{"\\ud800": 1}',
        '{"\\u0000": 1}',
        '["\\udfff\\ud800"]',
        '{"__soc__": "set", "v": ["\\u0000"]}',
        '{"__soc__": "unknown", "v": 1}',
        '{"__soc__": "", "v": 1}',
        '{"__soc__": 5, "v": 1}',
        '{"__soc__": null, "v": 1}',
        '{"__soc__": [], "v": 1}',
        '{"__soc__": "decimal"}',
        '{"__soc__": "decimal", "v": "1", "w": 1}',
        '{"__soc__": "decimal", "v": "x"}',
        '{"__soc__": "decimal", "v": 1}',
        '{"__soc__": "decimal", "v": [0, [1], 0]}',
        '{"__soc__": "uuid", "v": 5}',
        '{"__soc__": "uuid", "v": "x"}',
        '{"__soc__": "uuid", "v": null}',
        '{"__soc__": "date", "v": 5}',
        '{"__soc__": "date", "v": "2026-13-01"}',
        '{"__soc__": "datetime", "v": {}}',
        '{"__soc__": "time", "v": "25:00"}',
        '{"__soc__": "timedelta", "v": []}',
        '{"__soc__": "timedelta", "v": {}}',
        '{"__soc__": "timedelta", "v": "123"}',
        '{"__soc__": "timedelta", "v": [1, 2, 3, 4]}',
        '{"__soc__": "timedelta", "v": [1e12, 0, 0]}',
        '{"__soc__": "timedelta", "v": [1.5, 0, 0]}',
        '{"__soc__": "bytes", "v": "?"}',
        '{"__soc__": "bytes", "v": 5}',
        '{"__soc__": "bytes", "v": "ü"}',
        '{"__soc__": "set", "v": [[]]}',
        '{"__soc__": "set", "v": {}}',
        '{"__soc__": "tuple", "v": "ab"}',
        '{"__soc__": "dict", "v": []}',
        '{"__soc__": "os.system", "v": "true"}',
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000,
        "[]" * 70 + '"' + '\\"' * 300_000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_is_no_typed_json_of_ours_is_refused(text):
    with pytest.raises(PayloadError):
        loads(text)


def test_what_is_tagged_and_broken_is_not_repeated_in_the_error():
    for tag in ("decimal", "datetime", "date", "time", "uuid", "bytes"):
        with pytest.raises(PayloadError) as caught:
            loads(json.dumps({"__soc__": tag, "v": "sentinel-4711"}))
        chain = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
        assert "sentinel" not in chain
        assert tag in chain


def test_the_form_of_a_tag_is_fixed():
    """Tasks outlive a release: what was written must stay readable."""
    known = {
        '{"__soc__":"decimal","v":"1.50"}': Decimal("1.50"),
        '{"__soc__":"datetime","v":"2026-01-02T03:04:05.000006+00:00"}': datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        '{"__soc__":"date","v":"2026-01-02"}': date(2026, 1, 2),
        '{"__soc__":"time","v":"03:04:05"}': time(3, 4, 5),
        '{"__soc__":"timedelta","v":[-1,2,3]}': timedelta(-1, 2, 3),
        '{"__soc__":"uuid","v":"00000000-0000-0000-0000-000000000005"}': UUID(int=5),
        '{"__soc__":"bytes","v":"AP8="}': b"\x00\xff",
        '{"__soc__":"tuple","v":[1,2]}': (1, 2),
        '{"__soc__":"set","v":[1]}': {1},
        '{"__soc__":"frozenset","v":[]}': frozenset(),
        '{"__soc__":"dict","v":{"__soc__":1}}': {"__soc__": 1},
    }
    for text, value in known.items():
        assert dumps(value) == text
        assert loads(text) == value


def test_subclasses_travel_as_what_they_are_derived_from():
    class Moment(datetime):
        """As freezegun makes them."""

    assert loads(dumps(Moment(2026, 1, 2, 3))) == datetime(2026, 1, 2, 3)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_decimals_that_are_no_numbers_are_refused(text):
    with pytest.raises(PayloadError, match="no number"):
        dumps(Decimal(text))
