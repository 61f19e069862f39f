"""Entities to read."""

from __future__ import annotations

from google.cloud import datastore


def put(client, kind, rows, *, parent=None, namespace=None):
    """Put entities, `{id or name: properties}`, and return their keys in that order."""
    keys = []
    entities = []
    for part, properties in rows.items():
        key = client.key(kind, part, parent=parent, namespace=namespace or client.namespace)
        entity = datastore.Entity(key)
        entity.update(properties)
        keys.append(key)
        entities.append(entity)
    for first in range(0, len(entities), 500):
        client.put_multi(entities[first : first + 500])
    return keys


def walk(logic, batch_size=7, **options):
    """Return all entities, batch by batch."""
    found, key = [], options.pop("start_key", None)
    while True:
        batch, key = logic.getBatchOfData(start_key=key, batch_size=batch_size, **options)
        assert len(batch) == batch_size or key is None
        found += batch
        if key is None:
            return found


def parts(entities):
    """Return the ids or names of entities."""
    return [entity.key.id_or_name for entity in entities]
