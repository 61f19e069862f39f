"""Names of the API and their short forms: the engine keeps project/location/queue and the task's id."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, NamedTuple

from soc_tasks.engine.server import errors

#: Characters of a queue's short form that the engine's tables take.
LONGEST: Final = 200

_LOCATION = re.compile(r"projects/([A-Za-z0-9:.-]+)/locations/([A-Za-z0-9-]+)")
_QUEUE = re.compile(rf"{_LOCATION.pattern}/queues/([A-Za-z0-9-]{{1,100}})")
_TASK = re.compile(r"(projects/[^/]*/locations/[^/]*/queues/[^/]*)/tasks/(.*)", re.DOTALL)
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")

#: Bits of an id that the server chooses: random ones, the minute, and what tells it from others' numbers.
_RANDOM, _MINUTE, _CHECK = 40, 22, 12
_MINUTE_MICROS: Final = 60_000_000


class Location(NamedTuple):
    """A project's place in a region."""

    project: str
    location: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def prefix(self) -> str:
        """Return what the short forms of its queues begin with."""
        return f"{self.project}/{self.location}/"


class QueueName(NamedTuple):
    """The name of a queue."""

    project: str
    location: str
    queue: str

    def __str__(self) -> str:
        return f"{self.parent}/queues/{self.queue}"

    @property
    def parent(self) -> Location:
        """Return the place that it is in."""
        return Location(self.project, self.location)

    @property
    def key(self) -> str:
        """Return the short form."""
        return "/".join(self)


def parse_location(name: str) -> Location:
    """Return what a location's name says.

    Raises:
        ApiError: it is none.
    """
    found = _LOCATION.fullmatch(name)
    if found is None:
        # Ours: the service answers PERMISSION_DENIED of a project that cannot be.
        raise errors.invalid('Location name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>".')
    return Location(*found.groups())


def parse_queue(name: str) -> QueueName:
    """Return what a queue's name says.

    Raises:
        ApiError: it is none.
    """
    found = _QUEUE.fullmatch(name)
    if found is None:
        raise errors.bad_queue_name()
    queue = QueueName(*found.groups())
    if len(queue.key) > LONGEST:
        raise errors.invalid(f"The ids of project, location and queue may have {LONGEST - 2} characters together here.")
    return queue


def parse_task(name: str) -> tuple[QueueName, str]:
    """Return the queue and the id that a task's name says.

    Raises:
        ApiError: it is none.
    """
    found = _TASK.fullmatch(name)
    if found is None:
        raise errors.bad_task_name()
    queue = parse_queue(found[1])
    if not _TASK_ID.fullmatch(found[2]):
        raise errors.bad_task_id(found[2])
    return queue, found[2]


def from_key(key: str) -> QueueName:
    """Return the name of a short form."""
    return QueueName(*key.split("/"))


# Ids that the server chooses. A row is gone with its task; the id alone tells that there was one.


def make_id(key: str, now: int) -> str:
    """Return a new id for a task of a queue: a long decimal number, as the service's are.

    Args:
        key: the queue's short form.
        now: microseconds.
    """
    minute = now // _MINUTE_MICROS % (1 << _MINUTE)
    number = (1 << _RANDOM | secrets.randbits(_RANDOM)) << _MINUTE | minute
    return str(number << _CHECK | _check(key, number))


def was_made(key: str, name: str, now: int, seconds: float) -> bool:
    """Tell whether an id is one that the server chose for a queue within the last `seconds`."""
    if not name.isdecimal() or not name.isascii() or len(name) > 30:
        return False
    number, check = divmod(int(name), 1 << _CHECK)
    if number >> _MINUTE + _RANDOM != 1 or check != _check(key, number):
        return False
    minutes = (now // _MINUTE_MICROS - number) % (1 << _MINUTE)
    return minutes * 60 <= seconds


def _check(key: str, number: int) -> int:
    digest = hashlib.sha256(f"{key} {number}".encode()).digest()
    return int.from_bytes(digest[:2], "big") >> 16 - _CHECK
