"""Entities of tests: put, and counted."""

from __future__ import annotations


def put(client, kind, numbers, **properties):
    """Put entities with these ids, 500 at a time."""
    from google.cloud.datastore import Entity

    entities = []
    for number in numbers:
        entity = Entity(client.key(kind, number))
        entity.update(properties)
        entities.append(entity)
    for first in range(0, len(entities), 500):
        client.put_multi(entities[first : first + 500])


def count(client, kind):
    """Return how many entities a kind has."""
    query = client.query(kind=kind)
    query.keys_only()
    return len(list(query.fetch()))
