"""Regular upkeep: what fails does not keep the rest from it."""

from __future__ import annotations

from django.db import OperationalError

from soc_tasks.engine import hooks


def test_a_hook_that_fails_does_not_keep_the_others_from_running(monkeypatch):
    ran = []

    def fail():
        raise ValueError("broken")

    monkeypatch.setattr(hooks, "_upkeep", [fail, lambda: ran.append(1), fail, lambda: ran.append(2)])
    hooks.run_upkeep()
    assert ran == [1, 2]


def test_a_database_that_is_not_there_takes_one_line(monkeypatch, caplog):
    def fail():
        raise OperationalError("no such table: soc_tasks_outbox")

    monkeypatch.setattr(hooks, "_upkeep", [fail])
    hooks.run_upkeep()
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "no such table: soc_tasks_outbox" in record.getMessage()
