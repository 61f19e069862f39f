"""Regular upkeep: what fails does not keep the rest from it."""

from __future__ import annotations

from soc_tasks.engine import hooks


def test_a_hook_that_fails_does_not_keep_the_others_from_running(monkeypatch):
    ran = []

    def fail():
        raise ValueError("broken")

    monkeypatch.setattr(hooks, "_upkeep", [fail, lambda: ran.append(1), fail, lambda: ran.append(2)])
    hooks.run_upkeep()
    assert ran == [1, 2]
