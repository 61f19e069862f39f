"""Callbacks and ends of deferred iterations. What a callback does is given by the test: `act`."""

from __future__ import annotations

from soc_tasks import get_deferred_shard_index
from tests.specimen.models import Tag

#: The callbacks that returned: primary key, shard, arguments.
visits: list = []
#: What finalize was called with, and where.
ends: list = []
#: What a callback does before it is noted, and what finalize does; a test may replace them.
acts: dict = {}


def callback(instance, *args, **kwargs):
    if act := acts.get("callback"):
        act(instance)
    visits.append((instance.pk, get_deferred_shard_index(), args, kwargs))


def finalize(*args, **kwargs):
    if act := acts.get("finalize"):
        act()
    ends.append((get_deferred_shard_index(), args, kwargs))


def write(instance):
    """Leave a trace in the database."""
    Tag.objects.create(name=str(instance.pk))
    callback(instance)


def two_arguments(instance, word):
    callback(instance, word)


def halves(queryset, shard_count):
    """Divide in two, whatever is asked for."""
    keys = list(queryset.values_list("pk", flat=True))
    return [(None, keys[len(keys) // 2]), (keys[len(keys) // 2], None)]


def overlapping(queryset, shard_count, by=1):
    """Divide wrongly."""
    return [(None, 5 + by), (5, None)]


def note(entity, *args):
    """Note an entity of Datastore, which has a key."""
    if act := acts.get("callback"):
        act(entity)
    visits.append((entity.key.id_or_name, get_deferred_shard_index(), args))
