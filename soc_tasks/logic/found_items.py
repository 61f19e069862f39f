"""Finding the entities of custom logics again, by what their failed items keep.

Such a logic can only tell batches from a key on: where an entity is gone, the batch at its key begins with the one that
followed it, which is done already. What is kept of an item is where it began and where the next one did, so that its
successor can be told from it: a batch at either key goes on at the same one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.db.models import Model

from soc_tasks.state.kept_tasks import spell_out

#: Fetches the batch of one entity that begins at a key: entities, and the key of the next.
FetchOne = Callable[[str | None], tuple[list[Any], str | None]]


def name_entity(entity: Any) -> str:
    """Return the name of an entity that has one, and keeps it: `app.Model pk`, or `Kind id`; "" of others."""
    if isinstance(entity, Model):
        return f"{entity._meta.label} {entity.pk}"[:255]
    path = getattr(getattr(entity, "key", None), "flat_path", None)
    return " ".join(str(part) for part in path)[:255] if isinstance(path, tuple) else ""


def join_keys(key: str | None, next_key: str | None) -> str:
    """Return where an entity begins, and what follows it, as the key of its item."""
    return json.dumps([key, next_key])


def find_again(fetch: FetchOne, item_key: str, name: str, get_key: Callable[[Any], str] | None = None) -> list[Any]:
    """Return the entity of an item, alone; empty where it is gone.

    Args:
        fetch: asks the logic.
        item_key: what `join_keys` made.
        name: what `name_entity`, or else `repr`, told of it.
        get_key: tells where an entity begins, if the logic knows.
    """
    key, next_key = json.loads(item_key)
    entities, follows = fetch(key)
    if not entities:
        return []
    entity = entities[0]
    if get_key is not None:
        return [entity] if get_key(entity) == key else []
    if now := name_entity(entity):
        return [entity] if spell_out(now)[:255] == spell_out(name)[:255] else []
    if next_key is None or follows == next_key:
        return [entity]
    # What follows it has changed: another was put or taken away there, or this is what followed it.
    behind, follows_behind = fetch(next_key)
    return [] if behind and follows_behind == follows else [entity]
