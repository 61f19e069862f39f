"""Ids of starts, by which most tasks are called: they rise with time, and the key of a task's row stands in front.

An id is 12 hex digits of time in milliseconds and 20 of chance; the first 17 are a number that fits a table's key. So
the engine finds a task by its name without an index of names: on SQLite a commit of one task writes two pages then, not
four, and a new row and its entries go to the ends of their trees.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

#: Hex digits of a key that are chance, which is counted on within a millisecond; and those of an id behind its key.
_DRAWN: Final = 5
_REST: Final = 15
_LENGTH: Final = 32
#: By the wall clock as the process began, and counted from there: where somebody sets that back, ids go on rising.
_BEGAN: Final = time.time_ns() - time.monotonic_ns()

_lock = threading.Lock()
_last = 0


def _unlock() -> None:
    """Make the lock anew: a thread that is not in this process may have held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def make_key() -> int:
    """Return a new key, above all that this process made; another process makes the same once in ages."""
    return _take_keys(1, os.urandom(_DRAWN).hex())


def _take_keys(count: int, chance: str) -> int:
    """Return the first of so many new keys in a row; `chance` is hex digits, of which some are used."""
    global _last
    now = (_BEGAN + time.monotonic_ns()) // 1_000_000
    drawn = int(chance[:_DRAWN], 16)
    with _lock:
        first = max(_last + 1, now << 4 * _DRAWN | drawn)
        _last = first + count - 1
    return first


def make_start_id() -> str:
    """Return a new start id."""
    chance = os.urandom((_DRAWN + _REST) // 2).hex()
    return f"{_take_keys(1, chance):017x}{chance[_DRAWN:]}"


def make_start_ids(count: int) -> list[str]:
    """Return new start ids that rise: for many, a quarter of the work of as many calls for one."""
    first, chance = _take_keys(count, os.urandom(_DRAWN).hex()), os.urandom(8 * count).hex()
    return [f"{first + number:017x}{chance[16 * number : 16 * number + _REST]}" for number in range(count)]


def find_key(name: str) -> int | None:
    """Return the key that stands in a name of the length of a start id, or None; what follows it does not matter."""
    # Asked of each task: a regular expression would take twice as long.
    if len(name) != _LENGTH or name[0] != "0" or name[1] > "7":
        return None
    try:
        # MySQL takes 0 for no key.
        return int(name[:17], 16) or None
    except ValueError:
        return None
