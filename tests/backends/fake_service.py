"""A service that takes tasks by gRPC, and loses requests, loses replies or answers with errors, as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.cloud.tasks_v2 import types
from google.longrunning.operations_pb2 import GetOperationRequest, Operation

_REQUESTS = {
    name: getattr(types, f"{name}Request").pb()
    for name in ("CreateTask", "BatchCreateTasks", "CreateQueue", "UpdateQueue", "ListQueues")
} | {"GetOperation": GetOperationRequest}


class FakeService(grpc.GenericRpcHandler):
    """Keeps what it took.

    Attributes:
        requests: the messages that came, in order.
        tasks: the tasks that it took, by name; queues likewise.
        masks: the paths of each update of a queue.
        fault: called with each request; returns None, or an error's code and whether the task is taken all the same.
        batches: the batches that came, in order.
        batch_fault: the same as `fault`, of whole batches; None: the service has no batches.
        looks: how often a batch must be asked after until it is done.
        look_fault: called when one is; returns None or an error's code.
    """

    def __init__(self) -> None:
        self.requests: list = []
        self.metadata: list = []
        self.tasks: dict = {}
        self.queues: dict = {}
        self.masks: list = []
        self.fault: Callable = lambda request: None
        self.batches: list = []
        self.batch_fault: Callable | None = lambda request: None
        self.looks = 0
        self.look_fault: Callable = lambda: None
        self._operations: dict = {}
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
        if name not in _REQUESTS or (name == "BatchCreateTasks" and self.batch_fault is None):
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
            failed = self._take(request)
        if failed is not None:
            context.abort(*failed)
        return request.task

    def _take(self, request):
        """Take a task; return the code and text of an error, or None."""
        fault = self.fault(request)
        if fault is not None and not fault[1]:
            return fault[0], "as told"
        name = request.task.name
        if name in self.tasks:
            return grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists"
        self.tasks[name] = request.task
        return None if fault is None else (fault[0], "the reply was lost")

    def _BatchCreateTasks(self, request, context):
        with self._lock:
            self.batches.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            fault = self.batch_fault(request)
            if fault is not None and not fault[1]:
                context.abort(fault[0], "as told")
            told, operation = types.BatchCreateTasksMetadata.pb()(), Operation(name=f"operations/{len(self.batches)}")
            for index, each in enumerate(request.requests):
                if (failed := self._take(each)) is not None:
                    told.failed_requests[index].code = failed[0].value[0]
                    told.failed_requests[index].message = failed[1]
            operation.metadata.Pack(told)
            if len(told.failed_requests) == len(request.requests):
                operation.error.code, operation.error.message = grpc.StatusCode.ABORTED.value[0], "None succeeded"
            else:
                operation.response.Pack(types.BatchCreateTasksResponse.pb()())
            operation.done = True
            self._operations[operation.name] = [operation, self.looks]
        if fault is not None:
            context.abort(fault[0], "the reply was lost")
        return Operation(name=operation.name) if self.looks else operation

    def _GetOperation(self, request, context):
        with self._lock:
            kept = self._operations[request.name]
            kept[1] -= 1
            fault = self.look_fault()
        if fault is not None:
            context.abort(fault, "as told")
        return kept[0] if kept[1] <= 0 else Operation(name=request.name)

    def stop(self) -> None:
        self._server.stop(None).wait(10)
