"""Calls of the service: one channel for each process, raw messages, tries again where that is safe.

The client library makes the channel and its credentials. Its wrappers around each message are left out: they take most
of the time of a call.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from soc_tasks.backends.cloud_tasks.batches import FEWEST, Batches
from soc_tasks.backends.cloud_tasks.errors import AGAIN, ServiceError
from soc_tasks.backends.cloud_tasks.wire import messages, route
from soc_tasks.errors import ConfigurationError

#: Seconds for one try (the client library's default), and for all tries of a call.
TRY_SECONDS: Final = 20.0
CALL_SECONDS: Final = 30.0
#: Seconds before the second try, at most; doubled each time, up to the second figure. By chance, lest all come at once.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: Calls in flight at one time on the channel.
IN_FLIGHT: Final = 100
#: Where a server that stands for the service listens: host and port, without TLS.
EMULATOR_VARIABLE: Final = "TASKS_EMULATOR_HOST"

_CREATE: Final = "/google.cloud.tasks.v2.CloudTasks/CreateTask"

#: What became of a request: True: created. False: it was there, and an earlier try of ours may have done that.
Result = bool | ServiceError


class Service:
    """A client of Cloud Tasks.

    Args:
        channel: a gRPC channel.
        sleep: waits between tries.
        clock: monotonic seconds.
    """

    def __init__(
        self, channel: Any, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        import grpc

        self._channel = channel
        self._sleep = sleep
        self._clock = clock
        self._error = grpc.RpcError
        self._create = channel.unary_unary(
            _CREATE,
            request_serializer=messages().create.SerializeToString,
            # Whoever creates a task knows it: what comes back is not read.
            response_deserializer=_leave,
        )
        self._batches = Batches(channel, TRY_SECONDS, sleep, clock)

    def create(self, requests: Sequence[Any]) -> list[Result]:
        """Create tasks, many of them in batches; return what became of each, in order.

        A request is made again where its answer was lost: its name is fixed, so that no second task can come of it.

        Args:
            requests: messages of CreateTask.
        """
        results: list[Result] = [False] * len(requests)
        unsure: set[int] = set()
        waiting: list[int] = list(range(len(requests)))
        end, pause = self._clock() + CALL_SECONDS, FIRST_PAUSE
        while True:
            for number, result in self._try_all(requests, waiting):
                results[number] = result
                if isinstance(result, ServiceError):
                    if result.code in AGAIN:
                        unsure.add(number)
                    elif result.code == "ALREADY_EXISTS" and number in unsure:
                        results[number] = False
            waiting = [number for number in waiting if _may_pass(results[number])]
            if not waiting or self._clock() + pause >= end:
                return results
            self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _try_all(self, requests: Sequence[Any], numbers: Iterable[int]) -> Iterator[tuple[int, Result]]:
        """Make each request once: in batches, or many in flight at one time."""
        chosen = list(numbers)
        if len(chosen) >= FEWEST and self._batches.usable:
            found = self._batches.create(requests, chosen)
            yield from found.items()
            chosen = [number for number in chosen if number not in found]
        if len(chosen) == 1:
            # No other call to wait for: the plain way is the faster one.
            request = requests[chosen[0]]
            yield chosen[0], self._await(lambda: self._create(request, TRY_SECONDS, route("parent", request.parent)))
            return
        flying: deque[tuple[int, Any]] = deque()
        for number in chosen:
            if len(flying) == IN_FLIGHT:
                first, future = flying.popleft()
                yield first, self._await(future.result)
            request = requests[number]
            flying.append((number, self._create.future(request, TRY_SECONDS, route("parent", request.parent))))
        for number, future in flying:
            yield number, self._await(future.result)

    def _await(self, call: Callable[[], Any]) -> Result:
        try:
            call()
        except self._error as error:
            return ServiceError.of(error)
        return True

    @cached_property
    def client(self) -> Any:
        """Return the official client on this channel, for calls that need not be fast."""
        from google.cloud.tasks_v2 import CloudTasksClient
        from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

        return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=self._channel))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _leave(data: bytes) -> bytes:
    return data


def _may_pass(result: Result) -> bool:
    return isinstance(result, ServiceError) and result.code in AGAIN


def open_channel() -> Any:
    """Return a new channel: to the service, or to the server that `TASKS_EMULATOR_HOST` names.

    Raises:
        ConfigurationError: there are no credentials.
    """
    if host := os.environ.get(EMULATOR_VARIABLE):
        import grpc

        return grpc.insecure_channel(host)
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    try:
        return CloudTasksGrpcTransport().grpc_channel
    except DefaultCredentialsError as error:
        raise ConfigurationError(
            "There are no credentials for Google Cloud: run `gcloud auth application-default login`; or on your own "
            f"machine use `manage.py tasks sandbox`, or set {EMULATOR_VARIABLE}."
        ) from error


_lock = threading.Lock()
_services: dict[tuple[int, str | None], Service] = {}


def get_service() -> Service:
    """Return this process's client: a channel must not be carried across a fork."""
    key = (os.getpid(), os.environ.get(EMULATOR_VARIABLE))
    service = _services.get(key)
    if service is None:
        with _lock:
            # Another thread may have been faster.
            service = _services.get(key)
            if service is None:
                service = _services[key] = Service(open_channel())
    return service
