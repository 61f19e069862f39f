"""Types of a project's own, which travel by what it registers for them."""

from __future__ import annotations

from datetime import datetime

import pytest

from soc_tasks import PayloadError, register_codec, startTask
from soc_tasks.logic import payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.calls import Call, read_call, write_call
from soc_tasks.logic.payloads import UnknownNameError, dumps, loads
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen.functions import (
    Level,
    Money,
    Pair,
    Point,
    Word,
    note,
)
from tests.specimen.models import Tag


def travel(*args, **kwargs):
    """Return the arguments as they arrive."""
    call = read_call(write_call(Call(function=note, args=args, kwargs=kwargs)).text)
    assert call.function is note
    return call.args, call.kwargs


def carry(value):
    [[again], _] = travel(value)
    return again


@pytest.fixture
def codecs(monkeypatch):
    """Forget the codecs of a test."""
    monkeypatch.setattr(payloads, "_codecs", {})
    monkeypatch.setattr(payloads, "_codec_decoders", {})


@pytest.fixture
def money(codecs):
    register_codec(Money, lambda money: [money.cents, {"currency": "EUR"}], lambda parts: Money(parts[0]))


class Coin(Money):
    """A subclass of what has a codec."""


def test_a_codec_lets_a_type_travel_in_arguments_and_in_contexts(money, task_queues, site_calls):
    value = {"a": [Money(5), (Money(6),)], "__soc__": Money(7)}
    assert carry(value) == value
    assert carry({Money(1): Money(2)}) == {Money(1): Money(2)}
    startTask("behave", value)
    task_queues.process_task_queues()
    assert site_calls[0][1].task.context == value


def test_a_subclass_travels_by_the_codec_and_comes_back_as_that_returns(money):
    assert type(carry(Coin(5))) is Money
    register_codec(Coin, lambda coin: coin.cents, Coin)
    assert type(carry(Coin(5))) is Coin


def test_a_codec_goes_before_what_would_be_done_else(codecs):
    register_codec(Tag, lambda tag: tag.pk, lambda pk: Tag(pk=pk, name="loaded"))
    register_codec(Point, lambda point: point.x, Point)
    assert carry(Tag(pk=3, name="given")).name == "loaded"
    assert carry(Point(3, 4)) == Point(3)


@pytest.mark.parametrize("kind", [str, int, bool, float, list, dict, tuple, set, bytes, datetime, Level, Word, Pair])
def test_what_travels_as_it_is_takes_no_codec(codecs, kind):
    with pytest.raises(TypeError, match="needs no codec"):
        register_codec(kind, str, str)


@pytest.mark.parametrize("args", [("Money", str, str), (Money, "x", str), (Money, str, None), (Money(1), str, str)])
def test_a_codec_is_a_type_and_two_functions(codecs, args):
    with pytest.raises(TypeError, match="two functions"):
        register_codec(*args)


def test_what_a_codec_writes_must_travel(codecs):
    register_codec(Money, lambda money: {"owner": object()}, str)
    with pytest.raises(PayloadError, match=r"args\[0\]\['owner'\] is of type builtins.object"):
        carry(Money(1))
    register_codec(Money, lambda money: money, str)
    with pytest.raises(PayloadError, match="deeper than 32"):
        carry(Money(1))


@pytest.mark.parametrize("more", [None, Arguments()], ids=["context", "arguments"])
def test_a_codec_that_is_not_there_on_arrival_is_named(money, monkeypatch, more):
    text = dumps([Money(1)], more=more)
    monkeypatch.setattr(payloads, "_codec_decoders", {})
    with pytest.raises(UnknownNameError, match=r"functions\.Money"):
        loads(text, more)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), Tag.DoesNotExist("x")], ids=repr)
def test_a_codec_that_cannot_read_what_it_wrote_is_named(codecs, task_queues, error):
    def fail(_):
        raise error

    register_codec(Money, lambda money: money.cents, fail)
    with pytest.raises(PayloadError, match=r"codec of .*functions\.Money") as caught:
        carry(Money(1))
    assert caught.value.__cause__ is error


@pytest.mark.django_db
def test_a_context_with_a_codec_that_is_not_there_is_a_dead_letter(money, monkeypatch, task_queues):
    startTask("behave", {"price": Money(1)})
    monkeypatch.setattr(payloads, "_codec_decoders", {})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    [letter] = get_state().list_dead_letters()
    assert "tests.specimen.functions.Money" in letter.error
