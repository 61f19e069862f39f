"""The pulse of a worker: when its engine thread was last seen at work, and when the database was last had."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, NamedTuple

#: Seconds without the database after which that is trouble.
TROUBLE: Final = 5.0


class Beat(NamedTuple):
    """What is told of a pulse; ages are in seconds.

    Args:
        age: since the engine thread began its last turn.
        database: since the database last did what it was asked.
        asking: whether it is being asked.
        ready: whether tasks are claimed.
        silence: since it was told.
    """

    age: float
    database: float
    asking: bool
    ready: bool
    silence: float = 0.0

    def write(self) -> bytes:
        """Return it as a line for a pipe; many fit into what a pipe takes at once."""
        return b"%.3f %.3f %d %d\n" % self[:4]

    @classmethod
    def read(cls, line: bytes) -> Beat:
        """Return what a line tells."""
        age, database, asking, ready = line.split()
        return cls(float(age), float(database), asking == b"1", ready == b"1")

    def later(self, seconds: float) -> Beat:
        """Return what is true so many seconds later, if nothing was heard since."""
        return self._replace(age=self.age + seconds, database=self.database + seconds, silence=seconds)

    def hangs(self, patience: float) -> bool:
        """Tell whether the process stands still, or its engine thread does and does not wait for the database."""
        return self.ready and (self.silence > patience or (self.age > patience and not self.asking))

    @property
    def lacks_database(self) -> bool:
        """Tell whether the database is not to be had."""
        return self.ready and self.database > TROUBLE


class Pulse:
    """Kept by the engine thread: as a context manager around what needs the database; read by any other."""

    def __init__(self) -> None:
        self._turned_at = self._reached_at = time.monotonic()
        self._asking = False
        #: Whether tasks are claimed.
        self.ready = False

    def __enter__(self) -> None:
        self._turned_at = time.monotonic()
        self._asking = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._asking = False
        if kind is None:
            self._reached_at = time.monotonic()

    def feel(self) -> Beat:
        """Return how it is now."""
        now = time.monotonic()
        return Beat(now - self._turned_at, now - self._reached_at, self._asking, self.ready)
