"""gRPC: which method answers which RPC, and how an error reaches the client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from django.db import Error, connections

from soc_tasks.engine.server.errors import ApiError
from soc_tasks.engine.server.messages import api
from soc_tasks.errors import BackendUnavailableError

logger = logging.getLogger("soc_tasks.engine")

_SERVICE: Final = "google.cloud.tasks.v2.CloudTasks"
_TYPE: Final = "type.googleapis.com/"

#: Method of the API: the method here, and the class of its requests.
_METHODS: Final = {
    "ListQueues": "list_queues",
    "GetQueue": "get_queue",
    "CreateQueue": "create_queue",
    "UpdateQueue": "update_queue",
    "DeleteQueue": "delete_queue",
    "PurgeQueue": "purge_queue",
    "PauseQueue": "pause_queue",
    "ResumeQueue": "resume_queue",
    "ListTasks": "list_tasks",
    "GetTask": "get_task",
    "CreateTask": "create_task",
    "DeleteTask": "delete_task",
    "RunTask": "run_task",
    "BatchCreateTasks": "batch_create_tasks",
    "BatchDeleteTasks": "batch_delete_tasks",
}


def make_handlers(alias: str, objects: list[Any], connected: Callable[[], None]) -> list[Any]:
    """Return what answers the RPCs; those that are not among them are UNIMPLEMENTED.

    Args:
        alias: the database.
        objects: whose methods do what is asked.
        connected: called in the thread of each call, before it.
    """
    import grpc
    from google.cloud.location import locations_pb2
    from google.longrunning import operations_pb2

    def find(name: str) -> Callable[[Any], Any]:
        method: Callable[[Any], Any] = next(getattr(each, name) for each in objects if hasattr(each, name))
        return method

    def handle(name: str, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            _answering(find(name), alias, connected),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )

    services: dict[str, dict[str, Any]] = {
        _SERVICE: {method: handle(name, getattr(api(), f"{method}Request")) for method, name in _METHODS.items()},
        "google.longrunning.Operations": {
            "GetOperation": handle("get_operation", operations_pb2.GetOperationRequest),
        },
        "google.cloud.location.Locations": {
            "ListLocations": handle("list_locations", locations_pb2.ListLocationsRequest),
            "GetLocation": handle("get_location", locations_pb2.GetLocationRequest),
        },
    }
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _answering(method: Callable[[Any], Any], alias: str, connected: Callable[[], None]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: Any) -> Any:
        connected()
        try:
            return method(request)
        except ApiError as error:
            _refuse(context, error)
        except (BackendUnavailableError, Error) as error:
            logger.warning("the database %s is not to be had: %s", alias, error)
            connections[alias].close()
            _refuse(context, ApiError("UNAVAILABLE", "The database of the server is not to be had. Try again."))
        except Exception:
            logger.exception("a call of the API failed")
            connections[alias].close()
            _refuse(context, ApiError("INTERNAL", "The server failed; its log says why."))
        return None

    return answer


def _refuse(context: Any, error: ApiError) -> None:
    """End a call with an error, and a link as google.rpc.Help where there is one."""
    import grpc
    from google.rpc import error_details_pb2, status_pb2

    code = getattr(grpc.StatusCode, error.code)
    if error.link is not None:
        status = status_pb2.Status(code=code.value[0], message=error.message)
        link = error_details_pb2.Help.Link(description=error.link.description, url=error.link.url)
        status.details.add().Pack(error_details_pb2.Help(links=[link]))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, error.message)
