"""A service that takes tasks by gRPC, and loses requests, loses replies or answers with errors, as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.cloud.tasks_v2 import types

_REQUESTS = {
    name: getattr(types, f"{name}Request").pb() for name in ("CreateTask", "CreateQueue", "UpdateQueue", "ListQueues")
}


class FakeService(grpc.GenericRpcHandler):
    """Keeps what it took.

    Attributes:
        requests: the messages that came, in order.
        tasks: the tasks that it took, by name; queues likewise.
        masks: the paths of each update of a queue.
        fault: called with each request; returns None, or an error's code and whether the task is taken all the same.
    """

    def __init__(self) -> None:
        self.requests: list = []
        self.metadata: list = []
        self.tasks: dict = {}
        self.queues: dict = {}
        self.masks: list = []
        self.fault: Callable = lambda request: None
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=(self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def service(self, details):
        """Find the method that a call means."""
        name = details.method.rpartition("/")[2]
        if name not in _REQUESTS:
            return None
        return grpc.unary_unary_rpc_method_handler(
            getattr(self, f"_{name}"), _REQUESTS[name].FromString, lambda message: message.SerializeToString()
        )

    def _CreateQueue(self, request, context):
        return self._keep(request.queue, request.queue.DESCRIPTOR.fields_by_name)

    def _UpdateQueue(self, request, context):
        self.masks.append(list(request.update_mask.paths))
        return self._keep(request.queue, {path.partition(".")[0] for path in request.update_mask.paths})

    def _keep(self, queue, names):
        kept = self.queues.setdefault(queue.name, type(queue)(name=queue.name))
        for name in names:
            if queue.DESCRIPTOR.fields_by_name[name].message_type is not None and queue.HasField(name):
                getattr(kept, name).MergeFrom(getattr(queue, name))
        return kept

    def _ListQueues(self, request, context):
        if self.fault(request) is not None:
            context.abort(self.fault(request)[0], "as told")
        return types.ListQueuesResponse.pb()(queues=self.queues.values())

    def _CreateTask(self, request, context):
        with self._lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            fault = self.fault(request)
            if fault is not None and not fault[1]:
                context.abort(fault[0], "as told")
            name = request.task.name
            if name in self.tasks:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists")
            self.tasks[name] = request.task
            if fault is not None:
                context.abort(fault[0], "the reply was lost")
            return request.task

    def stop(self) -> None:
        self._server.stop(None).wait(10)
