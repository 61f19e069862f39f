"""How the engine thread rests between turns: until somebody enqueues, a task is due, or it is time to look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from soc_tasks.engine.caretaker import Caretaker
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.hands import Hands
from soc_tasks.engine.store.base import Store
from soc_tasks.engine.wakeup import Bell

#: Seconds after which an idle worker looks whether others committed: if datagrams wake it, and if none can.
POLL, QUICK_POLL = 0.2, 0.01
#: Seconds between looks for attempts past their deadline, and at whether it is time to end.
WATCH: Final = 0.1


class Rest:
    """Sleeps on the bell.

    Args:
        bell: rung by threads that answer, and by those who enqueue.
        store: tells whether others committed.
        hands: tell when something is due.
        caretaker: tells when it needs a turn.
        room: tells how many tasks may be claimed.
        ask: asks the database something, in a turn of its own; None: it is not to be had.
    """

    def __init__(
        self,
        bell: Bell,
        store: Store,
        hands: Hands,
        caretaker: Caretaker,
        room: Callable[[float], int],
        ask: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._bell = bell
        self._store = store
        self._hands = hands
        self._caretaker = caretaker
        self._room = room
        self._ask = ask
        self._mark: object = None

    def doze(self, now: float) -> None:
        """Sleep until something happens, or it is time for a turn."""
        hands = self._hands
        room = self._room(now) > 0
        if room and hands.look:
            return
        turned = hands.turned_at
        until = self._caretaker.next_at
        if hands.under_way:
            until = min(until, now + WATCH)
        if room and (left := self._ask(self._find_wait)) is not None:
            until = min(until, now + left)
        poll = QUICK_POLL if self._bell.slot is None else POLL
        while True:
            timeout = until - time.monotonic()
            if self._bell.wait(max(0.0, min(timeout, poll) if room else timeout), hear=room):
                if hands.turned_at == turned:
                    hands.look = True
                else:
                    # A thread made a turn: before it sleeps on, it is asked whether anything was due after that.
                    hands.ask_again()
                return
            changed = room and self._ask(self._has_changed) is not False
            if changed or timeout <= poll:
                if room and (left := self._ask(self._find_wait)) is not None and left <= 0:
                    hands.look = True
                return

    def _find_wait(self) -> float | None:
        """Return in how many seconds something is due."""
        due = self._hands.find_next()
        return None if due is None else (due - self._store.clock.now()) / SECOND

    def _has_changed(self) -> bool:
        """See, cheaply, whether others committed since the last look; then it must be asked again what is due."""
        mark = self._store.read_change_mark()
        if mark is not None and mark == self._mark:
            return False
        self._hands.ask_again()
        self._mark = mark
        return True
