"""Shares and parts of the tests: together they are all of them."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.shares import DIVIDED, ONCE, WHOLE, find_share, is_in_part

ROOT = Path(__file__).resolve().parent.parent


class Item(SimpleNamespace):
    """What is asked of a test; two are never equal."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def make(path, function, **axes):
    """Return the cases of a function, with ids that differ from run to run."""
    for places in product(*map(range, axes.values())):
        callspec = SimpleNamespace(indices=dict(zip(axes, places, strict=True)))
        yield Item(nodeid=f"{path}::{function}[{random.random()}]", callspec=callspec)


@pytest.fixture
def items():
    return [
        *(test for n in range(40) for test in make("tests/engine/test_x.py", f"test_{n}", database=3, seed=2)),
        *(test for n in range(40) for test in make("tests/logic/test_x.py", f"test_{n}", sign=2)),
        *make("tests/logic/test_arguments.py", "test_whole", value=4),
        *(Item(nodeid=f"tests/{folder}/test_x.py::test_alone") for folder in ("views", "chaos")),
        *make("tests/chaos/test_x.py", "test_there", database=3),
        *make("tests/faults/test_x.py", "test_here", database=3),
    ]


@pytest.mark.parametrize("of", [1, 2, 3])
def test_every_case_is_of_one_share_and_every_function_of_each(items, of):
    shares = [find_share(items, number, of) for number in range(1, of + 1)]
    assert set().union(*shares) == set(items)
    for item in items:
        held = sum(item in share for share in shares)
        everywhere = item.nodeid.startswith((*WHOLE, "tests/views/"))
        assert held == (of if everywhere else 1), item.nodeid
    functions = {item.nodeid.partition("[")[0] for item in items if item.nodeid.startswith("tests/engine/")}
    for share in shares:
        assert {item.nodeid.partition("[")[0] for item in share if item.nodeid.startswith("tests/engine/")} == functions


def test_no_share_has_always_the_same_value(items):
    share = find_share(items, 1, 2)
    assert {item.callspec.indices["sign"] for item in share if item.nodeid.startswith("tests/logic/test_x")} == {0, 1}
    assert {item.callspec.indices["database"] for item in share if item.nodeid.startswith("tests/engine/")} == {0, 1, 2}


def test_what_is_run_once_is_whole(items):
    first, second = (find_share(items, number, 2) for number in (1, 2))
    assert sum(item.nodeid.startswith("tests/chaos/") for item in first) == 4
    assert sum(item.nodeid.startswith("tests/faults/") for item in second) == 3


def test_the_order_of_the_tests_does_not_matter(items):
    assert find_share(items, 1, 2) == find_share(items[::-1], 1, 2)


def test_every_function_is_of_one_part(items):
    for item in items:
        held = sum(is_in_part(item, number, 2) for number in (1, 2))
        assert held == (1 if item.nodeid.startswith(DIVIDED) else 2)


@pytest.mark.parametrize("prefix", [*DIVIDED, *WHOLE, *(path for paths in ONCE for path in paths)])
def test_what_is_named_is_there(prefix):
    path = prefix.partition("::")[0]
    assert list(ROOT.glob(f"{path}*")), f"{prefix} is no test: it was renamed"
