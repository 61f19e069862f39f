"""Records as entities of Datastore, and back; and bytes of any size, as an entity with parts."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import simplejson

from soc_tasks.errors import FatalTaskError
from soc_tasks.state.datastore_units import Unit
from soc_tasks.state.kept_tasks import describe_task, rebuild_task, spell_out
from soc_tasks.values import Task

Record = TypeVar("Record")

ITERATION: Final = "SocTasksIteration"
SHARD: Final = "SocTasksShard"
LETTER: Final = "SocTasksDeadLetter"
PAYLOAD: Final = "SocTasksPayload"
RECEIPT: Final = "SocTasksReceipt"
FAILED_ITEM: Final = "SocTasksFailedItem"
OUTBOX: Final = "SocTasksOutbox"
#: What the tasks of one transaction have in common: no entity, but the beginning of their keys.
GROUP: Final = "SocTasksGroup"
#: What of some bytes has no room in their entity.
PART: Final = "SocTasksPart"

#: Properties that queries look for; all others are not indexed, and may be long.
_INDEXED: Final = frozenset({"expires", "watched", "leased_until", "queue", "name", "iteration", "created"})
#: Bytes in one entity, which takes 1,048,572 with all that is in it.
PIECE: Final = 900_000
#: Bytes of a text from which it is packed, and the most that an entity has room for.
_PACKED_FROM: Final = 100_000
_MOST_TEXT: Final = 900_000
#: Bytes of what an error says that are kept.
MOST_WORDS: Final = 60_000


def make_entity(key: Any, values: Mapping[str, Any], indexed: Collection[str] = _INDEXED) -> Any:
    """Return an entity that indexes what is looked for, and nothing else."""
    from google.cloud.datastore import Entity

    others = tuple(name for name in values if name not in indexed)
    entity = Entity(key=key, exclude_from_indexes=others)
    entity.update(values)
    return entity


def write_record(key: Any, record: Any, *, without: Collection[str], **more: Any) -> Any:
    """Return a record as an entity.

    Args:
        key: its key.
        record: a dataclass.
        without: names of fields that the key says.
        more: further properties; None: there is none of that name, not even in its index.

    Raises:
        FatalTaskError: a field has no room in an entity.
    """
    fields = [field.name for field in dataclasses.fields(record) if field.name not in without]
    values = {name: _pack(name, getattr(record, name)) for name in fields}
    return make_entity(
        key, {**values, **{name: value for name, value in more.items() if value is not None}}, frozenset(more)
    )


def read_record(kind: type[Record], entity: Any, **identity: Any) -> Record:
    """Return the record that an entity holds; a field that it lacks has its default.

    Args:
        kind: the dataclass.
        entity: the entity.
        identity: the fields that the key says.
    """
    values = {
        field.name: _unpack(entity[field.name], is_dict=str(field.type).startswith("dict"))
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name in entity and field.name not in identity
    }
    return kind(**identity, **values)


def _pack(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _shorten(name, simplejson.dumps(value))
    return _shorten(name, spell_out(value)) if isinstance(value, str) else value


def _shorten(name: str, text: str) -> str | bytes:
    """Return a text, or its packed bytes where it is long."""
    if len(text) < _PACKED_FROM:
        return text
    packed = zlib.compress(text.encode())
    if len(packed) > _MOST_TEXT:
        raise FatalTaskError(
            f"The {name} of an iteration takes {len(text):,} bytes, {len(packed):,} packed, and Datastore has room for "
            f"{_MOST_TEXT:,}. Keep the data in entities of your own, and pass their keys."
        )
    return packed


def _unpack(value: Any, *, is_dict: bool) -> Any:
    if isinstance(value, bytes):
        value = zlib.decompress(value).decode()
    if is_dict:
        return simplejson.loads(value)
    return to_moment(value) if isinstance(value, datetime) else value


def to_moment(value: datetime | None) -> datetime | None:
    """Return a moment as a plain datetime in UTC; Datastore's are of a class of their own."""
    if value is None:
        return None
    value = value.astimezone(UTC)
    return datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, tzinfo=UTC
    )


# Bytes


def put_bytes(unit: Unit, entity: Any, name: str, data: bytes, *, insert: bool) -> None:
    """Write an entity with bytes, and what of these has no room in it as parts.

    Args:
        unit: the transaction.
        entity: the entity, without the bytes.
        name: of the property.
        data: the bytes.
        insert: whether there must be none of its key.
    """
    rest = [data[first : first + PIECE] for first in range(PIECE, len(data), PIECE)]
    entity.update({name: data[:PIECE], "parts": len(rest)})
    entity.exclude_from_indexes = {*entity.exclude_from_indexes, name, "parts"}
    unit.put(entity, insert=insert)
    for key, piece in zip(part_keys(unit.client, entity), rest, strict=True):
        # With its own moment, for policies that delete by it.
        expires = {"expires": entity["expires"]} if "expires" in entity else {}
        unit.put(make_entity(key, {"data": piece, **expires}), insert=insert)


def part_keys(client: Any, entity: Any) -> list[Any]:
    """Return the keys of an entity's parts."""
    return [client.key(*entity.key.flat_path, PART, number + 1) for number in range(entity.get("parts", 0))]


# Tasks


def task_values(task: Task) -> dict[str, Any]:
    """Return the properties of a task, but for its body."""
    return {**describe_task(task), "held": task.created}


def read_task(entity: Any, body: bytes) -> Task:
    """Return the task that an entity holds."""
    moment = to_moment(entity["held"])
    assert moment is not None  # it is written with each
    return rebuild_task(entity, body, moment)
