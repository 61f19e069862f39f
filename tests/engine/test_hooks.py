"""Regular upkeep: what fails does not keep the rest from it."""

from __future__ import annotations

from django.db import OperationalError

from soc_tasks.engine import hooks
from soc_tasks.engine.caretaker import do_upkeep


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


def test_trouble_that_lasts_is_told_once_and_anew_when_it_comes_again(monkeypatch, caplog):
    answers = iter([1, 1, 1, 0, 1, 1])

    def fail():
        if next(answers):
            raise OperationalError("the server is gone")

    monkeypatch.setattr(hooks, "_upkeep", [fail])
    told = []
    for _ in range(6):
        caplog.clear()
        hooks.run_upkeep()
        told.append(len(caplog.records))
    assert told == [1, 0, 0, 0, 1, 0]


class Shelf:
    """Stands for a store that finds so much to sweep, or cannot be swept for a while."""

    upkeep = True
    is_amid_sweep = False

    def __init__(self, *found):
        self.found = list(found)

    def sweep(self, **_):
        if (count := self.found.pop(0)) is None:
            raise OperationalError("the server is gone")
        return count


def test_while_the_database_is_gone_nobody_else_asks_it(monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(hooks, "_upkeep", [lambda: asked.append(1)])
    monkeypatch.setattr(hooks, "_sweeps", [])
    shelf, well, told = Shelf(None, None, 0, None), True, []
    for _ in range(4):
        caplog.clear()
        well = do_upkeep(shelf, quiet=not well) is not None
        told.append((well, len(asked), len(caplog.records)))
    assert told == [(False, 0, 1), (False, 0, 0), (True, 1, 0), (False, 1, 1)]


def test_what_is_done_once_a_minute_is_done_again_at_once_where_there_is_more(monkeypatch):
    relayed, swept = [], []
    answers = iter([True, False, False])

    def sweep():
        swept.append(1)
        return next(answers)

    monkeypatch.setattr(hooks, "_upkeep", [lambda: relayed.append(1)])
    monkeypatch.setattr(hooks, "_sweeps", [sweep])
    shelf = Shelf(0, 0, 3)
    assert do_upkeep(shelf) is True
    assert do_upkeep(shelf) is False
    # A sweep that found something may have left some.
    assert do_upkeep(shelf) is True
    # In between, only what cannot wait.
    assert do_upkeep(shelf, sweeps=False) is False
    assert (len(relayed), len(swept), shelf.found) == (4, 3, [])
