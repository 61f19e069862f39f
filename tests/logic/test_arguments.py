"""What the arguments of deferred functions may hold: it comes back equal and of the same types, or is refused."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from google.cloud.datastore import Entity, Key
from hypothesis import given, settings
from hypothesis import strategies as st

from soc_tasks import PayloadError, defer
from soc_tasks.logic.calls import Call, read_call, write_call
from tests.logic.test_payloads import HASHABLE, KEYS, LOOK_ALIKES
from tests.specimen import datastore, functions
from tests.specimen.functions import (
    Base,
    Caller,
    Child,
    Colour,
    Derived,
    Fixed,
    Frozen,
    Grade,
    Level,
    Listing,
    Maker,
    Marks,
    Pair,
    Point,
    Rights,
    Typed,
    Word,
    note,
)
from tests.specimen.models import Tag

MEMBERS = st.sampled_from(
    [*Colour, *Level, *Word, *Grade, *Rights, *Marks, Rights(0), Rights.READ | Rights.WRITE, Marks.ONE | Marks.TWO]
)
NAMED = st.sampled_from(
    [note, functions.decorated, functions.cached, Maker, Maker.Inner, Maker.static, Maker.of_class, Child.of_class]
)
KEYS_OF_ANY_TYPE = st.recursive(
    HASHABLE | MEMBERS | NAMED | datastore.KEYS,
    lambda inner: st.one_of(
        st.builds(Frozen, inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Typed, st.integers(), inner),
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=3),
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    KEYS_OF_ANY_TYPE
    | st.sampled_from(LOOK_ALIKES)
    | st.builds(Fixed, st.sampled_from(["", "ü"]))
    | datastore.POINTS
    | datastore.TIMES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS_OF_ANY_TYPE, inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(KEYS_OF_ANY_TYPE, max_size=3),
        st.builds(Point, inner, inner, st.lists(inner, max_size=2)),
        st.builds(Derived, st.just("a"), st.integers(), inner),
        st.builds(Typed, st.integers(), inner),
        datastore.entities(inner, datastore.KEYS),
    ),
    max_leaves=10,
)


def travel(*args, **kwargs):
    """Return the arguments as they arrive."""
    call = read_call(write_call(Call(function=note, args=args, kwargs=kwargs)).text)
    assert call.function is note
    return call.args, call.kwargs


def carry(value):
    [[again], _] = travel(value)
    return again


def shape(value):
    """What equality does not see: types, the sign of zero, and the offset of a moment."""
    if isinstance(value, Entity | Key):
        return datastore.anatomy(value)
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(str(shape(item)) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        slots = [field.name for field in dataclasses.fields(value)]
        inside = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
        return type(value), {name: shape(item) for name, item in inside.items()}
    if isinstance(value, float):
        return float, math.copysign(1, value)
    return type(value), value.utcoffset() if isinstance(value, datetime) else None


@settings(deadline=None)
@given(VALUES, st.dictionaries(st.text(max_size=5), VALUES, max_size=2))
def test_whatever_goes_in_comes_out_equal_and_of_the_same_types(value, keywords):
    # Names of arguments may be anything: they reach the function by **.
    keywords = {name.replace("\x00", ""): item for name, item in keywords.items()}
    args, kwargs = travel(value, value, **keywords)
    assert args == (value, value)
    assert kwargs == keywords
    assert shape(args) == shape((value, value))
    assert shape(kwargs) == shape(keywords)


@pytest.mark.parametrize(
    "value",
    [
        {1: "a", "b": 2, None: 3, (1, "x"): 4, Level.LOW + 5: 5},
        {True: 1, 2: 3},
        {1.0: 1},
        {Colour.RED: Colour.BLUE, Word.YES: Word.YES, "__soc__": 1},
        {Frozen(1): {Frozen((1, 2)): 3}},
        {"__soc__": "map", "v": [[1, 2]]},
        {"__soc__": "enum", "v": ["tests.specimen.functions:Colour", "RED"]},
        {"__soc__": "function", "v": "os:system"},
        {"__soc__": "class", "v": "x"},
        {"__soc__": "field", "v": "x"},
        {"__soc__": "codec:x.Y", "v": "x"},
        [Level.LOW, 1, True, 1.0, Decimal(1)],
        [Word.YES, "yes", Grade.GOOD, "g"],
        {Typed(1, 2): Pair([1], {2})},
        *LOOK_ALIKES,
    ],
    ids=repr,
)
def test_keys_of_any_type_and_what_looks_like_a_tag(value):
    assert carry(value) == value
    assert shape(carry([value])) == shape([value])


def test_a_flag_that_has_no_name_and_one_of_several():
    for value in (Rights(0), Rights.READ | Rights.WRITE, Marks(0), Marks.ONE | Marks.TWO, Marks(9)):
        again = carry(value)
        assert (again, type(again)) == (value, type(value))


def test_members_are_the_members_themselves():
    for member in (*Colour, *Level, *Word, *Grade):
        assert carry(member) is member
    assert carry(Grade.GOOD).label == "Good"


def test_dataclasses_are_not_made_anew():
    fixed = Fixed("abc")
    object.__setattr__(fixed, "length", 99)
    assert carry(fixed).length == 99
    bare = object.__new__(Fixed)
    object.__setattr__(bare, "name", "x")
    assert not hasattr(carry(bare), "length")
    point = carry(Point(1, 2, [Point(3)]))
    assert (point, type(point.tags[0])) == (Point(1, 2, [Point(3)]), Point)


def test_what_post_init_sets_beside_the_fields_is_carried_and_what_is_computed_is_not():
    functions.calls.clear()
    base = Base("a", 5)
    assert (base.shout, functions.calls) == ("A", ["computed"])
    again = carry(base)
    assert again == base
    assert again.total == 10
    assert vars(again) == {"name": "a", "total": 10}
    assert again.shout == "A"


def test_functions_methods_and_partials_come_back():
    args = (note, Maker, Maker.static, Maker.of_class, Child.of_class, Child.static, Point(1).note, Typed(1).note)
    again, _ = travel(*args)
    assert again[:6] == args[:6]
    assert again[4].__self__ is Child
    for went, came in zip(args[6:], again[6:], strict=True):
        assert (came.__func__, came.__self__) == (went.__func__, went.__self__)
    inner = functools.partial(note, 1, x={2: 3})
    again = carry(functools.partial(inner, Colour.RED, y=[inner], **{"__soc__": 1, "v": 2}))
    assert (again.func, again.args) == (note, (1, Colour.RED))
    assert again.keywords["x"] == {2: 3}
    assert again.keywords["y"][0].args == (1,)
    assert (again.keywords["__soc__"], again.keywords["v"]) == (1, 2)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (SafeString("<b>"), "<b>"),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (SimpleLazyObject(lambda: Point(1)), Point(1)),
        (SimpleLazyObject(lambda: [1]), [1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_and_what_stands_for_another_travel_as_that(value, wanted):
    again = carry(value)
    assert again == wanted
    assert type(again) is type(wanted)


def test_the_user_of_a_request_travels_as_a_user():
    user = User(pk=5, username="ada")
    again = carry(SimpleLazyObject(lambda: user))
    assert type(again) is User
    assert (again.pk, again.username) == (5, "ada")
    with pytest.raises(PayloadError, match=r"args\[0\] is of type .*AnonymousUser"):
        carry(SimpleLazyObject(AnonymousUser))


@dataclasses.dataclass
class Report:
    owner: object = None


def nest(depth, make, leaf=None):
    value = leaf
    for _ in range(depth):
        value = make(value)
    return value


def circle():
    value = []
    value.append({"again": value})
    return value


def knot():
    point = Point(1)
    point.tags.append(point)
    return point


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), ""),
        (Report(object()), ".owner"),
        ([Report([1, {2: object()}])], "[0].owner[1][2]"),
        ({Frozen(object()): 1}, "a key of {}"),
        (Pair(1, (object(),)), ".right[0]"),
        (functools.partial(note, 1, object()), ".args[1]"),
        (functools.partial(note, x=object()), ".keywords['x']"),
        (functools.partial(Caller()), ".func"),
        (SimpleNamespace(a=1), ""),
        (Fraction(1, 3), ""),
        (bytearray(b"x"), ""),
        (1j, ""),
        (float("nan"), ""),
        (Report(float("inf")), ".owner"),
        ([Decimal("NaN")], "[0]"),
        ({1: "a\x00"}, "[1]"),
        (["\ud800"], "[0]"),
        ({"\ud800": 1}, "a key of {}"),
        (10**5000, ""),
        (Report(-(10**5000)), ".owner"),
        (Listing("a"), ""),
        ((i for i in ()), ""),
        (circle(), "[0]['again']"),
        (knot(), ".tags[0]"),
        (Tag.objects, ""),
        (HTTPStatus.OK, "the class of {}"),
        (Caller().__call__, ""),
        (nest(33, lambda inner: [inner]), "[0]" * 32),
        (nest(100_000, lambda inner: [inner]), "[0]" * 32),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_cannot_travel_is_refused_by_its_place(task_queues, value, place):
    for path, args, kwargs in (("args[1]", (1, value), {}), ("kwargs['report']", (), {"report": value})):
        with pytest.raises(PayloadError) as caught:
            defer(note, *args, **kwargs)
        assert (place.format(path) if "{}" in place else path + place) in str(caught.value)
        assert isinstance(caught.value, TypeError)
    task_queues.assertNumTasksEquals(0)


def test_the_text_of_a_refusal():
    with pytest.raises(PayloadError) as caught:
        defer(note, report=Report(SimpleNamespace()))
    assert str(caught.value) == (
        "kwargs['report'].owner is of type types.SimpleNamespace, which cannot travel as JSON. Pass its primary key or "
        "plain values, and load it in the task; or give the type a codec (register_codec)."
    )


NESTS = {
    "lists": lambda inner: [inner],
    "dicts": lambda inner: {"k": inner},
    "maps": lambda inner: {1: inner},
    "tuples": lambda inner: (inner,),
    "look-alikes": lambda inner: {"__soc__": inner, "v": 0},
    "dataclasses": lambda inner: Point(inner, 0, None),
    "dataclasses with more": lambda inner: Derived("a", 1, inner),
    "named tuples": lambda inner: Pair(inner, 1),
}
LEAVES = [None, 1, "x", Decimal(1), timedelta(1), datetime(2026, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize("make", NESTS.values(), ids=NESTS)
@pytest.mark.parametrize("leaf", LEAVES, ids=repr)
def test_32_levels_travel_wherever_they_stand_and_33_do_not(make, leaf):
    value = nest(32, make, leaf)
    args, kwargs = travel(value, x=value)
    assert (args, kwargs) == ((value,), {"x": value})
    for refused in (((nest(33, make, leaf),), {}), ((), {"x": nest(33, make, leaf)})):
        with pytest.raises(PayloadError, match="deeper than 32"):
            travel(*refused[0], **refused[1])


@pytest.mark.parametrize("leaf", [Level.LOW, Word.YES, Colour.RED, Rights.READ, note, Maker, Point(1), Tag()], ids=repr)
@pytest.mark.parametrize("depth", range(28, 35))
def test_what_is_let_out_is_let_in(leaf, depth):
    value = nest(depth, NESTS["lists"], leaf)
    try:
        text = write_call(Call(function=note, args=(value,), kwargs={})).text
    except PayloadError:
        assert depth > 30
        return
    [again] = read_call(text).args
    assert again == value or isinstance(leaf, Tag)


def test_partials_methods_and_instances_are_let_in_as_deep_as_they_are_let_out():
    for make in (
        lambda inner: functools.partial(note, inner),
        lambda inner: functools.partial(note, x=inner),
        lambda inner: Point(inner).note,
        lambda inner: {Frozen(1): inner},
    ):
        went = 0
        for depth in range(1, 34):
            try:
                text = write_call(Call(function=note, args=(nest(depth, make, 1),), kwargs={})).text
            except PayloadError:
                break
            read_call(text)
            went = depth
        assert 10 <= went <= 32


def test_a_text_of_the_most_bytes_travels_and_one_more_does_not(monkeypatch, task_queues):
    call = Call(function=note, args=("x" * 1000,), kwargs={})
    monkeypatch.setattr("soc_tasks.logic.calls.MOST_BYTES", len(write_call(call).text))
    assert read_call(write_call(call).text) == call
    with pytest.raises(PayloadError, match="is the most"):
        defer(note, "x" * 1001)
    task_queues.assertNumTasksEquals(0)
