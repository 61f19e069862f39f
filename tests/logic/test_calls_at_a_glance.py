"""What is told at a glance, to save time, is what the long way says."""

import inspect
from itertools import chain, combinations, product
from urllib.parse import quote_plus

import pytest

from soc_tasks.logic.calls import _surely_takes
from soc_tasks.logic.envelopes import _quoted_length


def nothing(): ...
def plain(a, b): ...
def default(a, b=1): ...
def positional(a, b=1, /): ...
def mixed(a, /, b, *, c, d=1): ...
def only(*, c): ...
def more(a, b=1, *c): ...
def any_name(a, /, b, **more): ...
def everything(*args, **kwargs): ...
def much(a, b=1, /, c=2, *args, d, **kwargs): ...


FUNCTIONS = (nothing, plain, default, positional, mixed, only, more, any_name, everything, much)
NAMES = ("a", "b", "c", "d", "x")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_arguments_are_taken_as_python_takes_them(function):
    keywords = chain.from_iterable(combinations(NAMES, many) for many in range(len(NAMES) + 1))
    for many, names in product(range(4), keywords):
        args, kwargs = (0,) * many, dict.fromkeys(names, 0)
        try:
            function(*args, **kwargs)
            good = True
        except TypeError:
            good = False
        assert _surely_takes(function, args, kwargs) is good, (args, kwargs)


def test_what_is_no_plain_function_is_looked_at_closely():
    def marked(): ...

    marked.__signature__ = inspect.signature(plain)
    assert not _surely_takes(marked, (), {})
    assert not _surely_takes(str.upper, ("a",), {})


@pytest.mark.parametrize("text", ["", "a b", "".join(map(chr, range(1, 128))) * 3])
def test_length_in_a_form(text):
    assert _quoted_length(text) == len(quote_plus(text))
