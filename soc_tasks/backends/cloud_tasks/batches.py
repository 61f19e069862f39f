"""Many tasks by one call: BatchCreateTasks, which takes a fraction of the time that a call for each takes.

A batch is an operation: it may be under way still when the call returns, and is asked after then. Whoever runs a server
without batches, or an account that may not ask, has tasks created one by one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from soc_tasks.backends.cloud_tasks.errors import AGAIN, ServiceError
from soc_tasks.backends.cloud_tasks.wire import messages, route

logger = logging.getLogger("soc_tasks")

#: Fewer tasks are created side by side, which is as quick: there is nothing to ask after.
FEWEST: Final = 10
#: Tasks of a batch (reference of BatchCreateTasks), and its bytes: those of the largest task, which surely pass.
MOST, MOST_BYTES = 100, 1_048_576
#: Batches in flight at one time.
IN_FLIGHT: Final = 16
#: Seconds before an operation is asked after, doubled each time up to the second figure; and for all of that.
FIRST_LOOK, LONGEST_LOOK, WAIT_SECONDS = 0.02, 1.0, 20.0

_BATCH: Final = "/google.cloud.tasks.v2.CloudTasks/BatchCreateTasks"
_GET: Final = "/google.longrunning.Operations/GetOperation"

#: What became of a request: True: created.
Found = bool | ServiceError


class Batches:
    """Creates tasks by the hundred.

    Args:
        channel: a gRPC channel.
        seconds: for one call.
        sleep: waits between looks at an operation.
        clock: monotonic seconds.
    """

    def __init__(
        self, channel: Any, seconds: float, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        import grpc
        from google.longrunning.operations_pb2 import GetOperationRequest, Operation

        self._seconds = seconds
        self._sleep = sleep
        self._clock = clock
        self._error = grpc.RpcError
        self._codes = {code.value[0]: code.name for code in grpc.StatusCode}
        self._ask_for = GetOperationRequest
        self._create = channel.unary_unary(
            _BATCH,
            request_serializer=messages().batch.SerializeToString,
            response_deserializer=Operation.FromString,
        )
        self._get = channel.unary_unary(
            _GET, request_serializer=GetOperationRequest.SerializeToString, response_deserializer=Operation.FromString
        )
        #: False once it was seen that the service has none, or does not let us ask after them.
        self.usable = True

    def create(self, requests: Sequence[Any], numbers: Sequence[int]) -> dict[int, Found]:
        """Create tasks; return what became of those that were in batches, by their number. The others are untouched.

        Args:
            requests: messages of CreateTask.
            numbers: which of them.
        """
        found: dict[int, Found] = {}
        flying: deque[tuple[list[int], Any]] = deque()
        for chunk in _cut(requests, numbers):
            if len(flying) == IN_FLIGHT:
                found |= self._land(*flying.popleft())
            if not self.usable:
                break
            parent = requests[chunk[0]].parent
            message = messages().batch(parent=parent, requests=[requests[number] for number in chunk])
            flying.append((chunk, self._create.future(message, self._seconds, route("parent", parent))))
        for chunk, call in flying:
            found |= self._land(chunk, call)
        return found

    def _land(self, chunk: list[int], call: Any) -> Mapping[int, Found]:
        """Return what became of a batch; nothing where nobody has begun with it."""
        try:
            operation = call.result()
        except self._error as error:
            failed = ServiceError.of(error)
            if failed.code in AGAIN:
                return dict.fromkeys(chunk, failed)
            if failed.code == "UNIMPLEMENTED":
                logger.debug("the service has no batches: %s", failed)
                self.usable = False
            # What is wrong with which task is learned one by one.
            return {}
        unread = self._await(operation)
        if isinstance(unread, ServiceError):
            return dict.fromkeys(chunk, unread)
        return dict(zip(chunk, self._read(unread, len(chunk)), strict=True))

    def _await(self, operation: Any) -> Any:
        """Return an operation that is done, or an error after which nobody knows what became of it."""
        end, pause = self._clock() + WAIT_SECONDS, FIRST_LOOK
        while not operation.done:
            if self._clock() + pause >= end:
                return ServiceError("DEADLINE_EXCEEDED", f"the batch {operation.name} has not ended in time")
            self._sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)
            try:
                operation = self._get(self._ask_for(name=operation.name), self._seconds, route("name", operation.name))
            except self._error as error:
                failed = ServiceError.of(error)
                if failed.code in AGAIN:
                    continue
                logger.info("what becomes of batches cannot be asked (%s): tasks are created one by one", failed)
                self.usable = False
                return ServiceError("UNAVAILABLE", f"the batch cannot be asked after ({failed})")
        return operation

    def _read(self, operation: Any, count: int) -> Iterator[Found]:
        told = messages().batch_told()
        operation.metadata.Unpack(told)
        for index in range(count):
            if index in told.failed_requests:
                yield self._name(told.failed_requests[index])
            elif operation.HasField("error"):
                yield self._name(operation.error)
            else:
                yield True

    def _name(self, status: Any) -> ServiceError:
        return ServiceError(self._codes.get(status.code, "UNKNOWN"), status.message)


def _cut(requests: Sequence[Any], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Cut requests into batches: each of one queue, and not too large."""
    open_chunks: dict[str, tuple[list[int], int]] = {}
    for number in numbers:
        request = requests[number]
        chunk, size = open_chunks.get(request.parent, ([], 0))
        own = request.ByteSize()
        if chunk and (len(chunk) == MOST or size + own > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(number)
        open_chunks[request.parent] = chunk, size + own
    for chunk, _ in open_chunks.values():
        yield chunk
