"""Ids of starts: the key in front, in order, one by one."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from soc_tasks import start_ids
from soc_tasks.start_ids import find_key, make_key, make_start_id, make_start_ids


def test_they_rise_however_fast_they_are_made():
    ids = [make_start_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_those_of_many_rise_too_and_no_other_comes_between():
    before, many, after = make_start_id(), make_start_ids(3000), make_start_id()
    assert [before, *many, after] == sorted({before, *many, after})
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in many)
    assert [find_key(one) for one in many] == list(range(find_key(many[0]), find_key(many[0]) + 3000))
    # What follows the keys is chance, of each.
    assert len({one[17:] for one in many}) == 3000
    assert make_start_ids(0) == []


def test_they_begin_with_the_time():
    before = time.time_ns() // 1_000_000
    told = int(make_start_id()[:12], 16)
    # Of another test, more may have been made than there were milliseconds for.
    assert before - 1 <= told <= time.time_ns() // 1_000_000 + 1000


def test_they_go_on_rising_where_the_clock_is_set_back(monkeypatch):
    first = make_start_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    second = make_start_id()
    # Nor does it matter how far the counting of this process is behind.
    monkeypatch.setattr(start_ids, "_BEGAN", 0)
    assert first < second < make_start_id()


def test_a_key_is_what_stands_in_front():
    one = make_start_id()
    assert find_key(one) == int(one[:17], 16)
    assert find_key(one) < make_key() < 2**63


def test_what_has_not_their_form_has_no_key():
    one = make_start_id()
    for other in (
        "",
        one[:-1],
        one + "0",
        "f" + one[1:],
        "08" + one[2:],
        one[:16] + "g" + one[17:],
        "-" * 32,
        "0" * 32,
    ):
        assert find_key(other) is None
    assert find_key(one[:17] + "of somebody's") is None
    assert find_key(one[:17] + "another's-name-") == find_key(one)
    assert find_key("07" + "f" * 30) == 2**63 - 1


def test_threads_make_no_two_alike():
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: make_key(), range(5000)))
    assert len(set(keys)) == 5000
