"""Functions, classes and values to be deferred."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import namedtuple
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from typing import NamedTuple

from django.db import models, transaction

from soc_tasks import (
    FatalTaskError,
    SingularTaskFailure,
    is_in_cron,
    is_in_task,
    task_execution_count,
    task_name,
    task_queue_name,
    task_retry_count,
)

#: What was called, and with what.
calls: list = []


def note(*args, **kwargs):
    calls.append((args, kwargs))


def tell(*args):
    """Note what the environment says of the call."""
    calls.append(
        (is_in_task(), is_in_cron(), task_name(), task_queue_name(), task_retry_count(), task_execution_count())
    )


def two(first, second=None):
    calls.append(((first, second), {}))


def raise_(error):
    """Raise what it is given the class of."""
    calls.append(((error,), {}))
    raise error("on purpose")


def write_row(number):
    from tests.specimen.models import Row

    Row.objects.create(hits=number)


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


class Word(StrEnum):
    YES = "yes"


class Grade(models.TextChoices):
    GOOD = "g", "Good"
    BAD = "b", "Bad"


class Marks(IntFlag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Base:
    """Sets more than its fields, and has a value that is computed when it is asked for."""

    name: str
    start: dataclasses.InitVar[int] = 3

    def __post_init__(self, start):
        self.total = start * 2

    @functools.cached_property
    def shout(self):
        calls.append("computed")
        return self.name.upper()


@dataclasses.dataclass
class Derived(Base):
    inner: object = None


@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    key: object
    more: object = None


@dataclasses.dataclass
class Listing(list):
    """Nobody can make it anew from its fields."""

    name: str = ""


class Typed(NamedTuple):
    x: int
    y: object = None

    def note(self, word):
        calls.append((self, word))


class Caller:
    """Instances that can be called, and nothing else."""

    def __call__(self):
        """Do nothing."""


def inject(function):
    """Hand on another argument than those that are given."""

    @functools.wraps(function)
    def wrapper(*args):
        return function("injected", *args)

    return wrapper


@inject
def injected(first, second):
    calls.append((first, second))


def quietly_async(function):
    """Hide that a function is async."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@quietly_async
async def hidden():
    calls.append("hidden")


def leave(*_):
    raise SystemExit(3)


def __private():
    """Its name is followed by nobody."""


os_system = os.system
renamed = note
a_lambda = lambda: None  # noqa: E731 - as people write it


broken = False


def fail_if_broken(value):
    if broken:
        raise RuntimeError("on purpose")
    calls.append(value)


class Quiet(SingularTaskFailure):
    """Not worth a line in the log."""


class LoudError(Exception):
    """Worth one."""


def answer(status):
    from django.http import HttpResponse

    return None if status is None else HttpResponse(status=status)


def fail_with(value):
    calls.append(value)
    raise LoudError("on purpose")


def write_and_fail_if_broken(number):
    write_row(number)
    if broken:
        raise RuntimeError("on purpose")


def write_there(value):
    from tests.specimen.models import Row

    Row.objects.using("other").create(hits=len(value))
    if broken:
        transaction.set_rollback(True, using="other")


def passing(value):
    """Tests take it away and bring it back."""
    calls.append(value)
