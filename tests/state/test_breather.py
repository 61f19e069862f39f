"""Pauses between SQLite transactions: long enough for SQLite's busy handler, rare enough not to cost."""

from __future__ import annotations

from functools import partial
from itertools import count, pairwise

import pytest

from soc_tasks.state.breather import PAUSE, PERIOD, SqliteBreather


def busy():
    """Others write all the time."""
    return partial(next, count())


def test_it_pauses_once_in_each_period_for_longer_than_sqlite_sleeps():
    now, pauses = [1000.0], []

    def sleep(seconds):
        pauses.append((now[0], seconds))
        now[0] += seconds

    breathe = SqliteBreather(busy(), clock=lambda: now[0], sleep=sleep)
    while now[0] < 1000 + 5 * PERIOD:
        breathe()
        now[0] += 0.02
    # sqlite3.c, sqliteDefaultBusyCallback: the longest delay between two tries is 100 ms.
    assert all(seconds > 0.1 for _, seconds in pauses)
    assert len(pauses) == 4
    starts = [moment for moment, _ in pauses]
    assert all(later - earlier <= PERIOD + PAUSE for earlier, later in pairwise(starts))


@pytest.mark.parametrize("version", [busy(), lambda: 1], ids=["others write", "nobody else writes"])
def test_runs_that_begin_at_different_times_pause_together(version):
    now = [1000.7]
    pauses = {"one": [], "two": []}
    breathers = {
        name: SqliteBreather(
            version, clock=lambda: now[0], sleep=lambda seconds, name=name: pauses[name].append(now[0])
        )
        for name in pauses
    }
    while now[0] < 1010:
        for breathe in breathers.values():
            breathe()
        now[0] += 0.02
    assert pauses["one"] == pauses["two"] != []


def test_every_other_pause_is_left_out_until_somebody_makes_use_of_one():
    now, pauses, versions = [1000.0], [], [0]

    def sleep(seconds):
        pauses.append(now[0])
        now[0] += seconds
        versions[0] += 20 < now[0] - 1000 < 25

    breathe = SqliteBreather(lambda: versions[0], clock=lambda: now[0], sleep=sleep)
    while now[0] < 1040:
        breathe()
        now[0] += 0.02
    # At 1002 there is one, and nobody in it; at 1020, 1022 and 1024 somebody writes, and at 1026 nobody does again.
    assert [round(moment) for moment in pauses] == [
        1002, 1004, 1008, 1012, 1016, 1020, 1022, 1024, 1026, 1028, 1032, 1036,
    ]  # fmt: skip
