"""Datastore's keys, entities, queries and what these hold, as plain values and back.

Nothing of google's is imported to write them, as whoever has one has its module; it is to read them, in functions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from soc_tasks.errors import PayloadError
from soc_tasks.logic.strict_json import check_text

Pack = Callable[[Any, str], Any]
Unpack = Callable[[Any], Any]

_HOME: Final = "google.cloud.datastore"
#: Classes by their full names, with the tags of their values.
_KINDS: Final = {
    (f"{_HOME}.key", "Key"): "datastore_key",
    (f"{_HOME}.entity", "Entity"): "datastore_entity",
    (f"{_HOME}.query", "Query"): "datastore_query",
    (f"{_HOME}.query", "PropertyFilter"): "datastore_filter",
    (f"{_HOME}.query", "And"): "datastore_and",
    (f"{_HOME}.query", "Or"): "datastore_or",
    (f"{_HOME}.helpers", "GeoPoint"): "datastore_point",
    # What properties hold that were read.
    ("proto.datetime_helpers", "DatetimeWithNanoseconds"): "datastore_time",
}
TAGS: Final = frozenset(_KINDS.values())
_QUERY_FIELDS: Final = frozenset(
    {"client", "kind", "project", "namespace", "ancestor", "filters", "projection", "order", "distinct_on", "analyze"}
)


def find_tag(value: Any) -> str | None:
    """Return the tag of a value of Datastore's, or None for any other."""
    if _HOME not in sys.modules:
        return None
    names = ((base.__module__, base.__qualname__) for base in type(value).__mro__)
    return next((_KINDS[name] for name in names if name in _KINDS), None)


def pack_value(tag: str, value: Any, path: str, pack: Pack) -> Any:
    """Return a value as plain values.

    Args:
        tag: its tag.
        value: the value.
        path: how errors name it.
        pack: packs what is in it.

    Raises:
        PayloadError: something in it cannot travel.
    """
    match tag:
        case "datastore_key":
            parts = [pack(part, path) for part in value.flat_path]
            return [pack(value.project, path), pack(value.namespace, path), pack(value.database, path), parts]
        case "datastore_entity":
            return _pack_entity(value, path, pack)
        case "datastore_query":
            return _pack_query(value, path, pack)
        case "datastore_filter":
            return [
                pack(value.property_name, path),
                pack(value.operator, path),
                pack(value.value, f"{path}[{value.property_name!r}]"),
            ]
        case "datastore_point":
            return [pack(value.latitude, f"{path}.latitude"), pack(value.longitude, f"{path}.longitude")]
        case "datastore_time":
            return [value.isoformat(), value.nanosecond]
    # Conditions in a condition; each may be in the old form, a tuple.
    return [pack(each, f"{path}.filters[{i}]") for i, each in enumerate(value.filters)]


def _pack_entity(entity: Any, path: str, pack: Pack) -> list[Any]:
    properties = {}
    for name, value in entity.items():
        if not isinstance(name, str):
            raise PayloadError(f"{path} has the property {name!r}; the names of properties are str.")
        properties[check_text(name, f"a property of {path}")] = pack(value, f"{path}[{name!r}]")
    packed = [pack(entity.key, f"{path}.key"), properties, pack(entity.exclude_from_indexes, path)]
    # The client writes a meaning back where the value is still the very one that it read.
    meanings = {
        check_text(name, f"a property of {path}"): [pack(meaning, path)]
        if name in entity and entity[name] is read
        else [pack(meaning, path), pack(read, f"{path}[{name!r}]")]
        for name, (meaning, read) in entity._meanings.items()
    }
    return [*packed, meanings] if meanings else packed


def _pack_query(query: Any, path: str, pack: Pack) -> dict[str, Any]:
    client, options = query._client, getattr(query, "_explain_options", None)
    packed = {
        # What makes up a client; its credentials are nobody's.
        "client": [pack(getattr(client, name, None), path) for name in ("project", "namespace", "database")],
        "kind": pack(query.kind, path),
        "project": pack(query._project, path),
        "namespace": pack(query._namespace, path),
        "ancestor": pack(query.ancestor, f"{path}.ancestor"),
        "filters": [pack(each, f"{path}.filters[{i}]") for i, each in enumerate(query.filters)],
        "projection": [pack(name, path) for name in query.projection],
        "order": [pack(name, path) for name in query.order],
        "distinct_on": [pack(name, path) for name in query.distinct_on],
        "analyze": None if options is None else bool(options.analyze),
    }
    return {name: value for name, value in packed.items() if value is not None and value != []}


def unpack_value(tag: str, packed: Any, unpack: Unpack) -> Any:
    """Return the value that `pack_value` was given.

    Raises:
        ValueError, TypeError: it is none.
    """
    if tag == "datastore_query":
        return _unpack_query(packed, unpack)
    if not isinstance(packed, list):
        raise ValueError(f"what is tagged {tag!r} is none")
    if tag == "datastore_entity":
        return _unpack_entity(packed, unpack)
    if tag == "datastore_key":
        project, namespace, database, parts = packed
        _check_all((str, int), parts)
        _check_all((str, type(None)), [project, namespace, database])
        from google.cloud.datastore.key import Key

        return Key(*parts, project=project, namespace=namespace, database=database)
    if tag == "datastore_point":
        latitude, longitude = packed
        _check_all((int, float), packed)
        from google.cloud.datastore.helpers import GeoPoint

        return GeoPoint(latitude, longitude)
    if tag == "datastore_time":
        return _unpack_time(*packed)
    from google.cloud.datastore import query as queries

    if tag == "datastore_filter":
        name, operator, value = packed
        _check_all((str,), [name, operator])
        return queries.PropertyFilter(name, operator, unpack(value))
    make = queries.And if tag == "datastore_and" else queries.Or
    return make([_check_condition(unpack(each)) for each in packed])


def _check_all(kinds: tuple[type, ...], values: Any) -> None:
    if not isinstance(values, list) or any(type(value) not in kinds for value in values):
        raise ValueError("a part of a value of Datastore's is of another type")


def _check_condition(value: Any) -> Any:
    if find_tag(value) not in ("datastore_filter", "datastore_and", "datastore_or") and not (
        isinstance(value, (tuple, list)) and len(value) == 3  # name, operator and value
    ):
        raise ValueError("a condition of a query is none")
    return value


def _check_key(value: Any) -> Any:
    if value is not None and find_tag(value) != "datastore_key":
        raise ValueError("a key of Datastore's is none")
    return value


def _unpack_entity(packed: list[Any], unpack: Unpack) -> Any:
    from google.cloud.datastore.entity import Entity

    key, properties, excluded, meanings = packed if len(packed) != 3 else (*packed, {})
    if not isinstance(properties, dict) or not isinstance(meanings, dict):
        raise ValueError("what is tagged 'datastore_entity' is none")
    entity = Entity(_check_key(unpack(key)))
    entity.exclude_from_indexes = unpack(excluded)
    if not isinstance(entity.exclude_from_indexes, (set, frozenset, list, tuple)):
        raise ValueError("what is tagged 'datastore_entity' is none")
    entity.update((name, unpack(value)) for name, value in properties.items())
    for name, parts in meanings.items():
        # Its meaning; and what was read, where that is not the value.
        meaning, read = (*parts, None) if len(parts) == 1 else parts
        entity._meanings[name] = (unpack(meaning), entity[name] if len(parts) == 1 else unpack(read))
    return entity


def _unpack_time(text: Any, nanosecond: Any) -> datetime:
    from proto.datetime_helpers import DatetimeWithNanoseconds

    if type(nanosecond) is not int or not 0 <= nanosecond < 10**9:
        raise ValueError("what is tagged 'datastore_time' is none")
    moment = datetime.fromisoformat(text)
    parts = moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
    fraction = {"nanosecond": nanosecond} if nanosecond else {"microsecond": moment.microsecond}
    time: datetime = DatetimeWithNanoseconds(*parts, tzinfo=moment.tzinfo, **fraction)
    return time


class LazyClient:
    """What a query that has travelled holds in place of its client, which is made when the query is run.

    It is a `google.cloud.datastore.Client` of the same project, namespace and database, with the credentials of the
    process that runs it: one for all queries.

    Args:
        project, namespace, database: those of the client.
    """

    def __init__(self, project: str | None, namespace: str | None, database: str | None) -> None:
        self.project = project
        self.namespace = namespace
        self.database = database

    def __getattr__(self, name: str) -> Any:
        """Return what only a real client has."""
        if name.startswith("__"):
            raise AttributeError(name)
        place = os.getpid(), os.environ.get("DATASTORE_EMULATOR_HOST")
        return getattr(_get_client(place, self.project, self.namespace, self.database), name)


@lru_cache(maxsize=32)
def _get_client(place: tuple[int, str | None], project: str | None, namespace: str | None, database: str | None) -> Any:
    """Return the client of a process and an emulator: no channel outlives a fork."""
    from google.cloud.datastore import Client

    return Client(project=project, namespace=namespace, database=database)


def _unpack_query(packed: Any, unpack: Unpack) -> Any:
    from google.cloud.datastore import ExplainOptions
    from google.cloud.datastore.query import Query

    if not isinstance(packed, dict) or packed.keys() - _QUERY_FIELDS or len(packed.get("client", ())) != 3:
        raise ValueError("what is tagged 'datastore_query' is none")
    names = [packed.get(name, []) for name in ("projection", "order", "distinct_on")]
    _check_all((str, type(None)), [*packed["client"], *(packed.get(name) for name in ("kind", "project", "namespace"))])
    for each in names:
        _check_all((str,), each)
    query = Query(
        LazyClient(*packed["client"]),
        kind=packed.get("kind"),
        ancestor=_check_key(unpack(packed.get("ancestor"))),
        projection=names[0],
        order=names[1],
        distinct_on=names[2],
        explain_options=ExplainOptions(analyze=packed["analyze"] is True) if "analyze" in packed else None,
    )
    # As they were: the constructor would take the client's where they are None, and warn of conditions in the old form.
    query._project, query._namespace = packed.get("project"), packed.get("namespace")
    query._filters = [_check_condition(unpack(each)) for each in packed.get("filters", [])]
    return query
