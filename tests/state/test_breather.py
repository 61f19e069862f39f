"""Pauses between SQLite transactions: long enough for SQLite's busy handler, rare enough not to cost."""

from __future__ import annotations

from itertools import pairwise

from soc_tasks.state.breather import PAUSE, PERIOD, SqliteBreather


def test_it_pauses_once_in_each_period_for_longer_than_sqlite_sleeps():
    now, pauses = [1000.0], []

    def sleep(seconds):
        pauses.append((now[0], seconds))
        now[0] += seconds

    breathe = SqliteBreather(clock=lambda: now[0], sleep=sleep)
    while now[0] < 1000 + 5 * PERIOD:
        breathe()
        now[0] += 0.02
    # sqlite3.c, sqliteDefaultBusyCallback: the longest delay between two tries is 100 ms.
    assert all(seconds > 0.1 for _, seconds in pauses)
    assert len(pauses) == 4
    starts = [moment for moment, _ in pauses]
    assert all(later - earlier <= PERIOD + PAUSE for earlier, later in pairwise(starts))


def test_runs_that_begin_at_different_times_pause_together():
    now = [1000.7]
    pauses = {"one": [], "two": []}
    breathers = {
        name: SqliteBreather(clock=lambda: now[0], sleep=lambda seconds, name=name: pauses[name].append(now[0]))
        for name in pauses
    }
    while now[0] < 1010:
        for breathe in breathers.values():
            breathe()
        now[0] += 0.02
    assert pauses["one"] == pauses["two"] != []
