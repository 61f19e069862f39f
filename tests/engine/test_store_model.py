"""A store against the model of a queue (tests/contracts/model.py), in random histories."""

from __future__ import annotations

import logging

import pytest
from django.db import connections
from hypothesis import HealthCheck
from hypothesis import settings as settings_of
from hypothesis.stateful import run_state_machine_as_test

from soc_tasks.engine import hooks
from soc_tasks.engine.store import get_store
from tests.contracts.chances import CONFIGURED
from tests.contracts.machine import Machine
from tests.databases import on_every_database

#: Histories, fewer where each statement is a way to a server and back, and the steps of each.
EXAMPLES, EXAMPLES_ON_A_SERVER, STEPS = 40, 10, 50
#: How many times as many the long form plays.
LONG = 30
# How long a step takes is the database's affair.
_SETTINGS = settings_of(
    deadline=None, stateful_step_count=STEPS, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def play(engine_database, settings, monkeypatch):
    """Give a function that plays histories."""
    settings.CLOUD_TASKS_QUEUES = CONFIGURED
    store = get_store(engine_database)

    def listen(exhausted, progress):
        monkeypatch.setattr(hooks, "_exhausted", [exhausted])
        monkeypatch.setattr(hooks, "_progress", [progress])

    examples = EXAMPLES if connections[engine_database].vendor == "sqlite" else EXAMPLES_ON_A_SERVER

    def run(times, *, derandomize):
        how = settings_of(_SETTINGS, max_examples=examples * times, derandomize=derandomize)
        run_state_machine_as_test(lambda: Machine(store, listen), settings=how)

    logging.disable(logging.CRITICAL)
    yield run
    logging.disable(logging.NOTSET)


@on_every_database
def test_histories(play):
    """The same ones each time."""
    play(1, derandomize=True)


@pytest.mark.long
@on_every_database
def test_many_histories(play):
    """Others each time; a failure prints how to play it again."""
    play(LONG, derandomize=False)
