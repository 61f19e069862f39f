"""What arrives as an argument: read as it was written, refused, or left for a release that knows it."""

from __future__ import annotations

import functools
from enum import Enum

import pytest

from soc_tasks import PayloadError, startTask
from soc_tasks.logic import payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.payloads import UnknownNameError, dumps, loads
from tests.specimen.functions import (
    Base,
    Child,
    Colour,
    Maker,
    Pair,
    Point,
    Rights,
    note,
)
from tests.specimen.models import Tag


@pytest.mark.parametrize(
    "tagged",
    [
        ("map", {}),
        ("map", [1]),
        ("map", [[1]]),
        ("map", [[[], 1]]),
        ("enum", "x"),
        ("enum", ["tests.specimen.functions:Colour"]),
        ("enum", ["tests.specimen.functions:Colour", "RED", 1]),
        ("enum", [5, "RED"]),
        ("enum", ["tests.specimen.functions:Colour", []]),
        ("class", 5),
        ("class", "os:system"),
        ("function", "tests.specimen.functions"),
        ("function", "tests.specimen.functions:note.__globals__"),
        ("method", [1, "bit_length", 2]),
        ("method", [{"__soc__": "class", "v": "tests.specimen.functions:Maker"}, 5]),
        ("method", [{"__soc__": "class", "v": "tests.specimen.functions:Maker"}, "__init__"]),
        ("partial", [1]),
        ("partial", [1, [], {}]),
        ("partial", ["x", 5, {}]),
        ("partial", "x"),
        ("dataclass", ["tests.specimen.functions:Point"]),
        ("dataclass", ["tests.specimen.functions:Point", []]),
        ("dataclass", ["tests.specimen.functions:Point", {}, []]),
        ("dataclass", ["tests.specimen.functions:Point", {}, {}, {}]),
        ("dataclass", [5, {}]),
        ("namedtuple", "x"),
        ("namedtuple", [5, []]),
        ("model", []),
        ("model", {"model": 5, "fields": {}}),
        ("model", {"model": "specimen.Tag"}),
        ("model", {"model": "specimen.Tag", "fields": []}),
        ("model", {"model": "specimen.Tag", "fields": {}, "more": 1}),
        ("model", {"model": "specimen.Tag", "fields": {}, "extra": []}),
        ("model", {"model": "specimen.Entry", "fields": {"day": {"__soc__": "field", "v": "x"}}}),
        ("os.system", "true"),
    ],
    ids=repr,
)
def test_what_is_tagged_and_is_none_is_refused(tagged):
    text = payloads._encoder.encode({"__soc__": tagged[0], "v": tagged[1]})
    with pytest.raises(PayloadError) as caught:
        loads(text, Arguments())
    assert not isinstance(caught.value, UnknownNameError)


@pytest.mark.parametrize(
    "tagged",
    [
        ("enum", ["tests.specimen.functions:Colour", "GREEN"]),
        ("enum", ["tests.specimen.functions:Gone", "RED"]),
        ("enum", ["tests.specimen.functions:Maker", "RED"]),
        ("enum", ["tests.specimen.functions:Rights", "x"]),
        ("class", "tests.specimen.functions:note"),
        ("class", "tests.specimen.gone:Maker"),
        ("class", "elsewhere.views:Maker"),
        ("function", "tests.specimen.functions:gone"),
        ("function", "tests.specimen.functions:calls"),
        ("method", [{"__soc__": "class", "v": "tests.specimen.functions:Maker"}, "gone"]),
        ("method", [{"__soc__": "class", "v": "tests.specimen.functions:Maker"}, "static"]),
        ("method", [1, "bit_length"]),
        ("dataclass", ["tests.specimen.functions:Maker", {}]),
        ("dataclass", ["tests.specimen.functions:Point", {"z": 1}]),
        ("dataclass", ["tests.specimen.functions:note", {}]),
        ("namedtuple", ["tests.specimen.functions:Pair", [1]]),
        ("namedtuple", ["tests.specimen.functions:Pair", [1, 2, 3]]),
        ("namedtuple", ["tests.specimen.functions:Maker", [1, 2]]),
        ("model", {"model": "specimen.Gone", "fields": {}}),
        ("model", {"model": "gone.Tag", "fields": {}}),
        ("model", {"model": "specimen.Tag", "fields": {"gone": 1}}),
        ("model", {"model": "specimen.Tag", "fields": {}, "using": "gone"}),
    ],
    ids=repr,
)
def test_what_another_release_may_know_is_unknown(tagged):
    text = payloads._encoder.encode({"__soc__": tagged[0], "v": tagged[1]})
    with pytest.raises(UnknownNameError):
        loads(text, Arguments())


def test_a_field_that_a_newer_release_has_gets_its_default():
    text = payloads._encoder.encode({"__soc__": "dataclass", "v": ["tests.specimen.functions:Point", {"x": 1}]})
    assert loads(text, Arguments()) == Point(1, 0, [])


def test_the_form_of_a_tag_is_fixed():
    """Calls outlive a release: what was written must stay readable."""
    home = "tests.specimen.functions"
    known = {
        f'{{"__soc__":"enum","v":["{home}:Colour","RED"]}}': Colour.RED,
        f'{{"__soc__":"enum","v":["{home}:Rights",3]}}': Rights.READ | Rights.WRITE,
        f'{{"__soc__":"class","v":"{home}:Maker.Inner"}}': Maker.Inner,
        f'{{"__soc__":"function","v":"{home}:Maker.static"}}': Maker.static,
        f'{{"__soc__":"method","v":[{{"__soc__":"class","v":"{home}:Child"}},"of_class"]}}': Child.of_class,
        f'{{"__soc__":"dataclass","v":["{home}:Point",{{"x":1,"y":0,"tags":[]}}]}}': Point(1),
        f'{{"__soc__":"dataclass","v":["{home}:Base",{{"name":"a"}},{{"total":6}}]}}': Base("a"),
        f'{{"__soc__":"namedtuple","v":["{home}:Pair",[1,2]]}}': Pair(1, 2),
        '{"__soc__":"map","v":[[1,2]]}': {1: 2},
    }
    for text, value in known.items():
        assert dumps(value, more=Arguments()) == text
        assert loads(text, Arguments()) == value
    text = f'{{"__soc__":"partial","v":[{{"__soc__":"function","v":"{home}:note"}},[1],{{"x":2}}]}}'
    assert dumps(functools.partial(note, 1, x=2), more=Arguments()) == text


def test_contexts_hold_none_of_this(task_queues):
    for value in (note, Colour, Point(1), Pair(1, 2), functools.partial(note), Tag()):
        with pytest.raises(PayloadError, match=r"context\['x'\]"):
            startTask("behave", {"x": value})
    assert isinstance(Colour.RED, Enum)
