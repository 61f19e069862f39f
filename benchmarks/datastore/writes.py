"""Batches that write: what Datastore's client does, and an iteration that keeps its place, over the same entities.

The floor is `put_multi` of entities that are at hand. A loop without a place fetches them before, which an iteration
has to as well. Entities lie under one parent: Datastore's emulator takes 25 entity groups in a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import path

from soc_tasks import DatastoreLogic, Iteration, iterative_task, startTask
from soc_tasks.state.datastore import get_client
from soc_tasks.testing import memory_queues

#: As many as a commit takes with what the library adds.
SIZE = 490
BATCHES = 6

#: When each batch of the iteration began.
moments: list[float] = []


def fill(client: Any) -> None:
    """Put the entities, under one parent."""
    from google.cloud.datastore import Entity

    entities = []
    for number in range(1, SIZE * BATCHES + 1):
        entity = Entity(client.key("Country", "AA", "Town", number), exclude_from_indexes=("notes",))
        entity.update(name=f"town {number}", hits=0, notes="x" * 200)
        entities.append(entity)
    for first in range(0, len(entities), SIZE):
        client.put_multi(entities[first : first + SIZE])


def _change(entities: list[Any]) -> None:
    for entity in entities:
        entity["hits"] += 1
    moments.append(time.perf_counter())
    get_client().put_multi(entities)


@iterative_task(DatastoreLogic("Town"), batch_size=SIZE, atomic=True)
def change_atomically(request: HttpRequest, entities: list[Any]) -> None:
    _change(entities)


@iterative_task(DatastoreLogic("Town"), batch_size=SIZE)
def change(request: HttpRequest, entities: list[Any]) -> None:
    _change(entities)


urlpatterns = [
    path("change_atomically/", change_atomically, name="change_atomically"),
    path("change/", change, name="change"),
]


def put_alone(client: Any) -> float:
    """Return the seconds of a batch whose entities are at hand."""
    entities = list(client.query(kind="Town", order=["__key__"]).fetch(limit=SIZE))
    begun = time.perf_counter()
    for _ in range(BATCHES - 1):
        client.put_multi(entities)
    return (time.perf_counter() - begun) / (BATCHES - 1)


def fetch_and_put(client: Any) -> float:
    """Return the seconds of a batch of a loop, from the first one's writing to the last one's."""
    begun, cursor, number = [], None, 0
    while number < BATCHES:
        results = client.query(kind="Town", order=["__key__"]).fetch(limit=SIZE, start_cursor=cursor)
        entities = list(results)
        for entity in entities:
            entity["hits"] += 1
        begun.append(time.perf_counter())
        client.put_multi(entities)
        cursor, number = results.next_page_token, number + 1
    return (begun[-1] - begun[0]) / (BATCHES - 1)


def iterate(name: str) -> Callable[[Any], float]:
    """Return what measures an iteration likewise."""

    def measure(client: Any) -> float:
        moments.clear()
        with memory_queues() as queues:
            handle = startTask(name)
            queues.process_task_queues()
        iteration = Iteration.get(str(handle.iteration))
        assert (iteration.status, iteration.done, len(moments)) == ("succeeded", SIZE * BATCHES, BATCHES)
        return (moments[-1] - moments[0]) / (BATCHES - 1)

    return measure


PUT, LOOP, LEASED, ATOMIC = (
    "put_multi alone",
    "query.fetch and put_multi",
    "a batch that is not atomic",
    "an atomic batch",
)
WAYS: dict[str, Callable[[Any], float]] = {
    PUT: put_alone,
    LOOP: fetch_and_put,
    LEASED: iterate("change"),
    ATOMIC: iterate("change_atomically"),
}
