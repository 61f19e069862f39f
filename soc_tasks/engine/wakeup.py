"""Waking workers: in the same process by a bell, on the same machine by a datagram, on others by what the store offers.

What none of these reaches looks by itself.

Best effort throughout: a wake that is lost costs the time until a worker looks again, never a task. A datagram carries
nothing, and anybody on the machine may send one. It makes a worker look; after a look that found nothing a worker hears
none for a moment, so that a flood of them costs little, and keeps nobody from working.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol
from weakref import WeakSet

from django.db import connections

#: How many workers of one database can be woken on a machine.
SLOTS: Final = 64
#: Free slots in a row after which no worker is expected behind them.
GAP: Final = 8
#: Seconds for which the slots that were found are used.
FRESH: Final = 1.0

#: Seconds for which a worker that found nothing hears no datagram.
DEAF: Final = 0.002
#: Seconds after which a connection to other machines that was lost is opened again.
LISTEN_AGAIN: Final = 5.0
#: Datagrams that are taken in at a time.
_MOST_HEARD: Final = 64


class Listener(Protocol):
    """Hears that workers of other machines should look."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def drain(self) -> bool:
        """Take in what was heard; False: no more will be."""

    def close(self) -> None:
        """End it."""


_bells: dict[str, WeakSet[Bell]] = {}


class Bell:
    """What a worker's engine thread sleeps on.

    Args:
        alias: the database whose tasks it waits for.
        listen: opens what hears other machines, if anything can.
    """

    def __init__(self, alias: str, listen: Callable[[], Listener | None] = lambda: None) -> None:
        self._reader, self._writer = socket.socketpair()
        self._listener, self.slot = _listen(alias)
        self._listen_far, self._far = listen, listen()
        self._listen_at: float | None = None
        self._rung = False
        # Two selectors: a worker that could take no task anyway does not listen to datagrams.
        self._deaf, self._hearing = selectors.DefaultSelector(), selectors.DefaultSelector()
        for selector in (self._deaf, self._hearing):
            selector.register(self._reader, selectors.EVENT_READ)
        if self._listener is not None:
            self._hearing.register(self._listener, selectors.EVENT_READ)
        if self._far is not None:
            self._hearing.register(self._far, selectors.EVENT_READ)
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._alias = alias
        self._deaf_until = 0.0
        _bells.setdefault(alias, WeakSet()).add(self)

    def ring(self) -> None:
        """Wake the sleeper, or keep it from falling asleep; from any thread."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):
                self._writer.send(b"!")

    def wait(self, timeout: float, *, hear: bool) -> bool:
        """Sleep until the bell rings, or for `timeout` seconds; tell whether something woke the sleeper.

        Args:
            timeout: seconds.
            hear: whether datagrams wake as well.
        """
        if self._listen_at is not None:
            self._listen_again()
        rest = self._deaf_until - time.monotonic() if hear else 0.0
        if rest > 0:
            events = self._deaf.select(min(rest, timeout))
            if not events and timeout > rest:
                # What was sent meanwhile is heard now.
                events = self._hearing.select(timeout - rest)
        else:
            events = (self._hearing if hear else self._deaf).select(timeout)
        for key, _ in events:
            if key.fileobj is self._far:
                self._drain_far()
                continue
            with contextlib.suppress(BlockingIOError):
                for _ in range(_MOST_HEARD if key.fileobj is self._listener else 1):
                    key.fileobj.recv(64)  # type: ignore[union-attr]
        # Only now: what rang before this line is seen by the caller, which looks at its work after waking.
        self._rung = False
        return bool(events)

    def _drain_far(self) -> None:
        if self._far is not None and not self._far.drain():
            self._hearing.unregister(self._far)
            self._far.close()
            self._far = None
            self._listen_at = time.monotonic() + LISTEN_AGAIN

    def _listen_again(self) -> None:
        if self._listen_at is None or time.monotonic() < self._listen_at:
            return
        self._far = self._listen_far()
        self._listen_at = None
        if self._far is None:
            self._listen_at = time.monotonic() + LISTEN_AGAIN
        else:
            self._hearing.register(self._far, selectors.EVENT_READ)

    def found_nothing(self) -> None:
        """Hear no datagram for a moment: nothing came of the last one."""
        self._deaf_until = time.monotonic() + DEAF

    def close(self) -> None:
        """Give the slot back."""
        _bells.get(self._alias, WeakSet()).discard(self)
        self._deaf.close()
        self._hearing.close()
        for end in (self._reader, self._writer, self._listener, self._far):
            if end is not None:
                end.close()


def wake(alias: str) -> bool:
    """Wake the workers of a database on this machine; tell whether there are any. Never raises."""
    own = set()
    for bell in tuple(_bells.get(alias, ())):
        own.add(bell.slot)
        bell.ring()
    key = _key(alias)
    reached = key is not None and _sender(key).send(own)
    return reached or bool(own)


class _Sender:
    """Sends datagrams to the slots that answer."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._found: tuple[int, ...] = ()
        self._until = 0.0

    def send(self, own: set[int | None]) -> bool:
        """Send to all but those of this process; tell whether any was reached."""
        now = time.monotonic()
        if now < self._until:
            return sum(self._reach(slot) for slot in self._found if slot not in own) > 0
        self._until = now + FRESH
        found, missed = [], 0
        for slot in range(SLOTS):
            if slot in own or self._reach(slot):
                found.append(slot)
                missed = 0
            else:
                missed += 1
                if missed == GAP:
                    break
        self._found = tuple(found)
        return bool(set(found) - own)

    def _reach(self, slot: int) -> bool:
        try:
            _socket().sendto(b"!", _address(self._key, slot))
        except BlockingIOError:
            # It has been woken often enough already.
            return True
        except OSError:
            return False
        return True


@lru_cache(maxsize=1)
def _socket() -> socket.socket:
    """Return the socket that all datagrams of this process leave by."""
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    out.setblocking(False)
    atexit.register(out.close)
    return out


@lru_cache(maxsize=16)
def _sender(key: str) -> _Sender:
    return _Sender(key)


def _key(alias: str) -> str | None:
    """Return what names a database on this machine, or None where no datagram can."""
    connection = connections[alias]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():  # type: ignore[attr-defined]
        return None
    settings: dict[str, Any] = connection.settings_dict
    return _digest(connection.vendor, str(settings["NAME"]), str(settings["HOST"]), str(settings["PORT"]))


@lru_cache(maxsize=16)
def _digest(vendor: str, name: str, host: str, port: str) -> str | None:
    if not hasattr(socket, "AF_UNIX"):
        return None
    place = os.path.realpath(name) if vendor == "sqlite" else name
    return hashlib.sha256(f"{vendor}\n{place}\n{host}\n{port}".encode()).hexdigest()[:24]


def _address(key: str, slot: int) -> str:
    if sys.platform == "linux":
        # A name without a file: nothing is left behind.
        return f"\0soc_tasks/{key}/{slot}"
    return os.path.join(tempfile.gettempdir(), f"soc_tasks-{key}-{slot}")


def _listen(alias: str) -> tuple[socket.socket | None, int | None]:
    """Take the first free slot."""
    key = _key(alias)
    if key is None:
        return None, None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    for slot in range(SLOTS):
        address = _address(key, slot)
        if not address.startswith("\0") and os.path.exists(address) and not _sender(key)._reach(slot):
            with contextlib.suppress(OSError):
                os.unlink(address)
        with contextlib.suppress(OSError):
            listener.bind(address)
            return listener, slot
    listener.close()
    return None, None
