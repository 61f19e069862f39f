"""Logics by name, and what may stand for one."""

from __future__ import annotations

import pytest

from soc_tasks.logic import batches
from soc_tasks.logic.batches import ModelLogic, get_logic, is_logic, register_logic, resolve_logic
from tests.specimen.models import Entry


class OwnLogic:
    """All that a logic needs."""

    def getBatchOfData(self, filter=None, start_key=None, batch_size=None):
        return [], None


class StaticLogic:
    @staticmethod
    def getBatchOfData(filter=None, start_key=None, batch_size=None):
        return [], None


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(batches, "_registry", {})


def test_names_may_hold_dots_and_are_never_imported():
    logic = OwnLogic()
    register_logic("no.such.module.student", logic)
    assert get_logic("no.such.module.student") is resolve_logic("no.such.module.student") is logic


def test_models_and_querysets_are_wrapped_once():
    register_logic("entry", Entry)
    register_logic("entry", Entry)
    assert isinstance(get_logic("entry"), ModelLogic)
    assert get_logic("entry") is get_logic("entry")


def test_a_name_stands_for_one_logic():
    logic = OwnLogic()
    register_logic("own", logic)
    register_logic("own", logic)
    with pytest.raises(ValueError, match="another logic already"):
        register_logic("own", OwnLogic())
    assert get_logic("own") is logic


@pytest.mark.parametrize("name", ["", None, 7])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="is a text"):
        register_logic(name, OwnLogic())


@pytest.mark.parametrize("logic", [None, 7, "entry", object(), len])
def test_only_logics_are_registered(logic):
    with pytest.raises(TypeError):
        register_logic("name", logic)
    with pytest.raises(LookupError):
        get_logic("name")


@pytest.mark.parametrize("error", [LookupError, ValueError])
@pytest.mark.parametrize("name", ["os.path", "", None, ["own"]])
def test_unknown_names_tell_the_known_ones(error, name):
    with pytest.raises(error, match=r"Known: none"):
        get_logic(name)
    register_logic("own", OwnLogic())
    register_logic("entry", Entry)
    with pytest.raises(error, match=r"Known: entry, own"):
        get_logic(name)


def test_what_stands_for_a_logic():
    own = OwnLogic()
    assert resolve_logic(own) is own
    assert resolve_logic(StaticLogic) is StaticLogic
    assert resolve_logic(Entry).model is Entry
    assert resolve_logic(Entry.objects).model is Entry
    assert resolve_logic(Entry.objects.filter(count=1)).model is Entry
    for value in (own, StaticLogic, Entry, Entry.objects, Entry.objects.all(), "any name"):
        assert is_logic(value)


def test_a_class_in_place_of_its_instance():
    assert is_logic(OwnLogic)
    with pytest.raises(TypeError, match=r"OwnLogic\(\.\.\.\)"):
        resolve_logic(OwnLogic)


@pytest.mark.parametrize("value", [None, 7, len, lambda request: None, object(), dict, [Entry]])
def test_what_stands_for_none(value):
    assert not is_logic(value)
    with pytest.raises(TypeError, match="is no logic"):
        resolve_logic(value)
