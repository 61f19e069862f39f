"""The API's batches: they are done when they are answered, and kept as operations for a day."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.models import ServedOperation
from soc_tasks.engine.server import errors
from soc_tasks.engine.server.errors import ApiError
from soc_tasks.engine.server.messages import api, set_micros
from soc_tasks.engine.server.names import QueueName, parse_queue, parse_task
from soc_tasks.engine.server.queues import Queues
from soc_tasks.engine.server.task_methods import TaskMethods
from soc_tasks.engine.store.enqueue import EnqueueStore

#: Requests of a batch (reference of BatchCreateTasks and BatchDeleteTasks).
MOST_CREATED, MOST_DELETED = 100, 1000
#: Seconds for which an operation can be asked for, ours.
KEPT: Final = 86400
_NAME = re.compile(r"projects/[^/]+/locations/[^/]+/operations/[0-9a-f]{32}")
_ABORTED: Final = 10


class BatchMethods:
    """What clients do with many tasks at once.

    Args:
        store: keeps them.
        queues: keeps their queues.
        tasks: does it one by one.
    """

    def __init__(self, store: EnqueueStore, queues: Queues, tasks: TaskMethods) -> None:
        self._store = store
        self._queues = queues
        self._tasks = tasks

    def batch_create_tasks(self, request: Any) -> Any:
        """Queue tasks, those that can be."""
        queue = self._check(request.parent, len(request.requests), MOST_CREATED)

        def create(each: Any) -> Any:
            if each.parent not in {"", request.parent}:
                # Ours.
                raise errors.invalid(f"The parent of each request must be {request.parent}, not {each.parent}.")
            each.parent = request.parent
            return self._tasks.create_task(each)

        return self._run(
            queue,
            request,
            request.requests,
            create,
            api().BatchCreateTasksMetadata(),
            lambda tasks: api().BatchCreateTasksResponse(tasks=tasks),
        )

    def batch_delete_tasks(self, request: Any) -> Any:
        """Delete tasks, those that are there."""
        from google.protobuf.empty_pb2 import Empty

        queue = self._check(request.parent, len(request.names), MOST_DELETED)

        def delete(name: str) -> Any:
            own, _ = parse_task(name)
            if own != queue:
                # Ours.
                raise errors.invalid(f"{name} must begin with {queue}.")
            return self._tasks.delete_task(api().DeleteTaskRequest(name=name))

        return self._run(queue, request, request.names, delete, api().BatchDeleteTasksMetadata(), lambda _: Empty())

    def get_operation(self, request: Any) -> Any:
        """Return what came of a batch."""
        from google.longrunning.operations_pb2 import Operation

        if not _NAME.fullmatch(request.name):
            # Ours.
            raise errors.invalid(
                'Operation name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/operations/<ID>".'
            )
        kept = self._find(request.name)
        if kept is None:
            raise errors.not_found()
        return Operation.FromString(kept)

    def _find(self, name: str) -> bytes | None:
        rows = ServedOperation.objects.using(self._store.alias)
        found = rows.filter(name=name).values_list("operation", flat=True).first()
        return None if found is None else bytes(found)

    def _check(self, parent: str, count: int, most: int) -> QueueName:
        queue = parse_queue(parent)
        self._queues.check(queue)
        if not 0 < count <= most:
            # Ours.
            raise errors.invalid(f"A batch holds from 1 to {most} requests, not {count}.")
        return queue

    def _run(
        self,
        queue: QueueName,
        request: Any,
        items: Iterable[Any],
        act: Callable[[Any], Any],
        metadata: Any,
        respond: Callable[[list[Any]], Any],
    ) -> Any:
        """Do something with each item; return the operation that tells of it."""
        from google.longrunning.operations_pb2 import Operation

        # The same request id is the same operation: a client that asks again learns what came of it.
        given = f"{queue} {type(request).__name__} {request.request_id}"
        own = hashlib.sha256(given.encode()).hexdigest()[:32] if request.request_id else uuid.uuid4().hex
        name = f"{queue.parent}/operations/{own}"
        if request.request_id and (kept := self._find(name)) is not None:
            return Operation.FromString(kept)
        set_micros(metadata.start_time, self._store.clock.now())
        done = []
        for index, item in enumerate(items):
            try:
                done.append(act(item))
            except ApiError as error:
                metadata.failed_requests[index].code = _number(error.code)
                metadata.failed_requests[index].message = error.message
        now, failed = self._store.clock.now(), len(metadata.failed_requests)
        set_micros(metadata.end_time, now)
        state = "SUCCEEDED" if not failed else "PARTIALLY_SUCCEEDED" if done else "FAILED"
        metadata.state = metadata.State.Value(state)
        operation = Operation(name=name, done=True)
        operation.metadata.Pack(metadata)
        if done:
            operation.response.Pack(respond(done))
        else:
            operation.error.code = _ABORTED
            operation.error.message = (
                f"None of the requests succeeded, refer to {type(metadata).__name__}.failed_requests for individual "
                "error details"
            )
        with self._store.writing():
            rows = ServedOperation.objects.using(self._store.alias)
            rows.filter(created__lt=now - KEPT * SECOND).delete()
            rows.update_or_create(name=name, defaults={"operation": operation.SerializeToString(), "created": now})
        return operation


def _number(code: str) -> int:
    import grpc

    number: int = getattr(grpc.StatusCode, code).value[0]
    return number
