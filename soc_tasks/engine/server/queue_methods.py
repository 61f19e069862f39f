"""The API's methods on queues, and the locations that they are in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from soc_tasks.engine.server import errors
from soc_tasks.engine.server.messages import api
from soc_tasks.engine.server.names import Location, QueueName, parse_location, parse_queue
from soc_tasks.engine.server.pages import make_token, page_size, read_token
from soc_tasks.engine.server.queues import Queues
from soc_tasks.engine.store.enqueue import EnqueueStore

#: Queues of one page (reference of ListQueues).
MOST_QUEUES: Final = 9800

_FILTER = re.compile(r'\s*state\s*[:=]\s*"?(RUNNING|PAUSED|DISABLED)"?\s*')
_PROJECT = re.compile(r"projects/([A-Za-z0-9:.-]+)")


class QueueMethods:
    """What clients do with queues.

    Args:
        store: keeps their tasks.
        queues: keeps their configurations.
        locations: those that are there without queues.
    """

    def __init__(self, store: EnqueueStore, queues: Queues, locations: set[Location]) -> None:
        self._store = store
        self._queues = queues
        self._locations = locations

    def create_queue(self, request: Any) -> Any:
        """Make a queue."""
        parent, name = request.parent, request.queue.name
        queue = parse_queue(name)
        self._check_parent(queue, name, parent)
        self._queues.create(queue, request.queue)
        return self._queues.get(queue)

    @staticmethod
    def _check_parent(queue: QueueName, name: str, parent: str) -> None:
        if str(queue.parent) != parent:
            raise errors.invalid(f"{name} must begin with {parent}.")

    def get_queue(self, request: Any) -> Any:
        """Return a queue."""
        return self._queues.get(parse_queue(request.name))

    def list_queues(self, request: Any) -> Any:
        """Return the queues of a location by name, page by page."""
        parent = parse_location(request.parent)
        now = self._store.clock.now()
        state = None
        if request.filter:
            found = _FILTER.fullmatch(request.filter)
            if found is None:
                raise errors.absent("This server knows no other filters of queues than `state: PAUSED`, say.")
            state = api().Queue.State.Value(found[1])
        after = read_token(request.page_token, request.parent, now)
        most = page_size(request.page_size, MOST_QUEUES)
        # One more tells whether there is another page.
        queues = self._queues.find_many(parent, after=after, limit=most + 1, state=state)
        page = queues[:most]
        token = make_token(request.parent, parse_queue(page[-1].name).key, now) if len(queues) > most else ""
        return api().ListQueuesResponse(queues=page, next_page_token=token)

    def update_queue(self, request: Any) -> Any:
        """Change a queue, or make it."""
        queue = parse_queue(request.queue.name)
        self._queues.update(queue, request.queue, list(request.update_mask.paths))
        return self._queues.get(queue)

    def delete_queue(self, request: Any) -> Any:
        """Delete a queue with its tasks."""
        from google.protobuf.empty_pb2 import Empty

        self._queues.delete(parse_queue(request.name))
        return Empty()

    def purge_queue(self, request: Any) -> Any:
        """Delete the tasks of a queue."""
        return self._do(request, lambda queue: self._store.purge(queue.key))

    def pause_queue(self, request: Any) -> Any:
        """Keep the tasks of a queue back."""
        return self._do(request, lambda queue: self._store.set_paused(queue.key, True))

    def resume_queue(self, request: Any) -> Any:
        """Let a queue run again."""
        return self._do(request, lambda queue: self._store.set_paused(queue.key, False))

    def _do(self, request: Any, act: Callable[[QueueName], object]) -> Any:
        queue = parse_queue(request.name)
        self._queues.check(queue)
        act(queue)
        return self._queues.get(queue)

    # Locations: those that somebody named.

    def list_locations(self, request: Any) -> Any:
        """Return the locations of a project that have queues, or were given to the server."""
        from google.cloud.location import locations_pb2

        found = _PROJECT.fullmatch(request.name)
        if found is None:
            raise errors.invalid('Project name must be formatted: "projects/<PROJECT_ID>".')
        names = sorted({*self._queues.locations(), *self._locations})
        return locations_pb2.ListLocationsResponse(
            locations=[_show(name) for name in names if name.project == found[1]]
        )

    def get_location(self, request: Any) -> Any:
        """Return a location."""
        location = parse_location(request.name)
        if location not in self._queues.locations() | self._locations:
            raise errors.not_found()
        return _show(location)


def _show(location: Location) -> Any:
    from google.cloud.location import locations_pb2

    return locations_pb2.Location(
        name=str(location),
        location_id=location.location,
        labels={"cloud.googleapis.com/region": location.location},
    )
