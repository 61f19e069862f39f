"""Functions, classes and values to be deferred."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from enum import Enum, Flag, IntEnum

from soc_tasks import FatalTaskError

#: What was called, and with what.
calls: list = []


def note(*args, **kwargs):
    calls.append((args, kwargs))


def two(first, second=None):
    calls.append(((first, second), {}))


def raise_(error):
    """Raise what it is given the class of."""
    calls.append(((error,), {}))
    raise error("on purpose")


def write_row(number):
    from tests.specimen.models import Row

    Row.objects.create(value=number)


def refuse(*args):
    """Fail for good."""
    raise FatalTaskError("refused")


async def wait():
    """Nobody can call it."""


def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append("loud")
        return function(*args, **kwargs)

    return wrapper


@loud
def decorated(value):
    calls.append(value)


@functools.lru_cache
def cached(value):
    calls.append(value)


class Maker:
    """A class to be deferred itself, and by its methods."""

    def __init__(self, value):
        calls.append(("made", value))

    @staticmethod
    def static(value):
        calls.append(("static", value))

    @classmethod
    def of_class(cls, value):
        calls.append((cls.__name__, value))

    class Inner:
        @staticmethod
        def static(value):
            calls.append(("inner", value))


class Child(Maker):
    """Inherits the class method."""


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list = dataclasses.field(default_factory=list)

    def note(self, word):
        calls.append((self, word))


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    name: str
    length: int = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "length", len(self.name))


Pair = namedtuple("Pair", "left right")


class Money:
    """A type with a codec, if a test registers one."""

    def __init__(self, cents):
        self.cents = cents

    def __eq__(self, other):
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self):
        return hash(self.cents)
