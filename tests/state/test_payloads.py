"""What a state keeps for tasks whose arguments are too large for them: the contract."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from soc_tasks.models import PayloadRow
from soc_tasks.state import get_state

pytestmark = pytest.mark.django_db(databases=["default", "other"])

FIRST, SECOND = "1" * 32, "2" * 32


@pytest.fixture
def state():
    return get_state()


def later(state, **more):
    return state.now() + timedelta(**more)


def test_nothing_is_kept_for_a_task_that_is_not_known(state):
    assert state.get_payload(FIRST) is None
    state.clear_payloads([FIRST])
    state.clear_payloads([])
    assert state.get_payload(FIRST) is None


@pytest.mark.parametrize("data", [b"x", b"\x00\xff" * 10, bytes(range(256)) * 8192], ids=len)
def test_what_is_kept_comes_back_as_bytes(state, data):
    state.keep_payload(FIRST, data, later(state, days=1))
    assert state.get_payload(FIRST) == data
    assert type(state.get_payload(FIRST)) is bytes
    assert state.get_payload(SECOND) is None


def test_what_is_cleared_is_empty_and_not_forgotten(state):
    for start_id in (FIRST, SECOND):
        state.keep_payload(start_id, b"x", later(state, days=1))
    state.clear_payloads([FIRST, "3" * 32])
    assert (state.get_payload(FIRST), state.get_payload(SECOND)) == (b"", b"x")
    state.clear_payloads([FIRST, SECOND])
    assert state.get_payload(SECOND) == b""


def test_what_is_kept_commits_with_the_transaction_of_the_state(state):
    with state.atomic():
        state.keep_payload(FIRST, b"x", later(state, days=1))
        transaction.set_rollback(True, using=state.alias)
    assert state.get_payload(FIRST) is None
    with state.atomic():
        state.keep_payload(FIRST, b"x", later(state, days=1))
    with state.atomic():
        state.clear_payloads([FIRST])
        transaction.set_rollback(True, using=state.alias)
    assert state.get_payload(FIRST) == b"x"


def test_nothing_is_kept_twice_for_one_task(state):
    state.keep_payload(FIRST, b"x", later(state, days=1))
    with pytest.raises(IntegrityError), state.atomic():
        state.keep_payload(FIRST, b"y", later(state, days=1))
    assert state.get_payload(FIRST) == b"x"


def test_what_is_past_its_time_is_swept_cleared_or_not(state):
    for index, (days, cleared) in enumerate([(-1, False), (-1, True), (1, False), (1, True)]):
        state.keep_payload(str(index) * 32, b"x", later(state, days=days))
        if cleared:
            state.clear_payloads([str(index) * 32])
    assert state.sweep() == 2
    assert [state.get_payload(str(index) * 32) for index in range(4)] == [None, None, b"x", b""]
    assert state.sweep() == 0


def test_it_lives_on_the_database_of_the_state(state):
    state.keep_payload(FIRST, b"x", later(state, days=1))
    assert PayloadRow.objects.using(state.alias).get().start_id == FIRST
    assert PayloadRow.objects.using("other").count() == 0
