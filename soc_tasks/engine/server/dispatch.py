"""Dispatch: a task of the API becomes one HTTP request; what came of it is kept with the task.

2xx ends a task, anything else is a failed attempt: other statuses, no whole answer before the deadline, no connection.
Redirects are not followed, which the service "may" do for HTTP targets and never does for App Engine's. Headers and
body of the answer mean nothing, but for `Retry-After` beside 429 and 503.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from soc_tasks.engine.answers import make_answer
from soc_tasks.engine.clock import Clock, to_micros
from soc_tasks.engine.server.queues import Queues
from soc_tasks.engine.server.requests import Outgoing, for_app_engine, for_http, service_of
from soc_tasks.engine.server.rows import Attempts
from soc_tasks.engine.server.tokens import Tokens
from soc_tasks.engine.verdicts import TIMED_OUT
from soc_tasks.values import Answer, Delivery, Task

logger = logging.getLogger("soc_tasks.engine")

#: What is noted where nobody answered.
NO_CONNECTION: Final = 502
#: Hosts whose connections are kept.
HOSTS: Final = 64
#: Seconds between log lines about one host.
QUIET: Final = 10.0


def listens(host: str, port: int) -> bool:
    """Tell whether somebody takes connections at an address."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Start:
    """Waits for an attempt to begin.

    Args:
        expected: where the dispatcher looks for those who wait.
        key: the task's queue and name.
    """

    def __init__(self, expected: dict[tuple[str, str], list[Start]], key: tuple[str, str]) -> None:
        self._expected = expected
        self._key = key
        self._event = threading.Event()
        self._began: int | None = None

    def __enter__(self) -> Start:
        with _expecting:
            self._expected[self._key] = [*self._expected.get(self._key, ()), self]
        return self

    def __exit__(self, *_: object) -> None:
        with _expecting:
            rest = [start for start in self._expected[self._key] if start is not self]
            if rest:
                self._expected[self._key] = rest
            else:
                del self._expected[self._key]

    def tell(self, began: int) -> None:
        """Say that it began, in microseconds."""
        self._began = began
        self._event.set()

    def wait(self, seconds: float) -> int | None:
        """Return when it began, or None if it does not within so many seconds."""
        self._event.wait(seconds)
        return self._began


_expecting = threading.Lock()


class ServedDispatcher:
    """Makes the calls of a server; shared by its threads.

    Args:
        queues: tells how queues are configured.
        clock: tells when attempts begin.
        tokens: makes tokens.
        services: base URLs of App Engine services by name; "default" is where all others go.
        after: host and port where somebody has to listen before anything is attempted.
    """

    #: Seconds beyond its deadline in which an attempt ends by itself: its socket keeps the time.
    patience: Final = 1.0

    def __init__(
        self,
        queues: Queues,
        clock: Clock,
        tokens: Tokens,
        services: Mapping[str, str],
        after: tuple[str, int] | None = None,
    ) -> None:
        import urllib3

        from soc_tasks.engine import wire

        self._queues = queues
        self._clock = clock
        self._tokens = tokens
        self._services = dict(services)
        #: Where somebody has to listen first.
        self._after = after
        self._manager = wire.make_manager(HOSTS)
        self._wire = wire
        self._urllib3: Any = urllib3
        self._told: dict[str, float] = {}
        #: Attempts under way, by queue and name: when each began, in microseconds.
        self._under_way: dict[tuple[str, str], int] = {}
        self._expected: dict[tuple[str, str], list[Start]] = {}

    def find_start(self, queue: str, name: str) -> int | None:
        """Return when the attempt of a task began that is under way, or None."""
        return self._under_way.get((queue, name))

    def expect_start(self, queue: str, name: str) -> Start:
        """Return what tells when an attempt of a task begins, from now on; to be used in a with statement."""
        return Start(self._expected, (queue, name))

    def __call__(self, task: Task, delivery: Delivery) -> Answer:
        """Make the call and return its answer."""
        after = self._after
        if after is not None and not listens(*after):
            # No attempt: it comes again in a moment.
            return Answer(status=NO_CONNECTION, outcome="busy")
        self._after = None
        key, began = (task.queue, task.name), self._clock.now()
        self._under_way[key] = began
        for start in self._expected.get(key, ()):
            start.tell(began)
        try:
            return self._attempt(task, delivery, began)
        finally:
            self._under_way.pop(key, None)

    def _attempt(self, task: Task, delivery: Delivery, began: int) -> Answer:
        attempts = Attempts.read(delivery.note, delivery.retry_count)
        queue, is_http = self._queues.find(task.queue), "host" not in (task.target or {})
        status = retry_after = None
        try:
            if is_http:
                outgoing = for_http(task, delivery, attempts, queue)
            else:
                outgoing = for_app_engine(task, delivery, attempts, self._find_base(service_of(task, queue)))
            self._wire.call.deadline = delivery.deadline
            status, retry_after = self._send(outgoing)
            attempts.why = ""
        except (self._urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # A URL that cannot be called was taken by the service all the same, and fails when it is due.
            delivery.failures.append(error)
            attempts.why = "timeout" if time.monotonic() >= delivery.deadline else "unreachable"
            if attempts.why == "unreachable":
                self._tell(task, error)
        attempts.made, attempts.first = attempts.made + 1, attempts.first or began
        attempts.status = status or 0
        if delivery.eta is not None:
            attempts.scheduled = to_micros(delivery.eta)
        attempts.dispatched, attempts.answered = began, self._clock.now() if status is not None else 0
        if status is not None:
            attempts.responses += 1
            attempts.counted += not is_http or status < 500
        answer = make_answer(
            status or (TIMED_OUT if attempts.why == "timeout" else NO_CONNECTION), None, None, retry_after
        )
        # App Engine targets: only 503 throttles the queue (client library, AppEngineHttpRequest).
        presses = is_http or status == 503
        return Answer(status=answer.status, retry_after=answer.retry_after, presses=presses, note=attempts.write())

    def _find_base(self, service: str) -> str:
        base = self._services.get(service) or self._services.get("default")
        if base is None:
            raise OSError(f"no URL was given for the App Engine service {service} (--app-engine-url, --service)")
        return base

    def _send(self, outgoing: Outgoing) -> tuple[int, str | None]:
        """Make a request; return status and `Retry-After` of its answer."""
        url = self._urllib3.util.parse_url(outgoing.url)
        if url.host is None:
            raise OSError(f"{outgoing.url!r} has no host")
        headers = self._urllib3.HTTPHeaderDict()
        for name, value in outgoing.headers.items():
            # As UTF-8 on the wire.
            headers[name] = value.encode().decode("latin-1")
        if outgoing.oidc is not None:
            headers["Authorization"] = f"Bearer {self._tokens.make(*outgoing.oidc)}"
        if "Accept-Encoding" not in headers:
            headers["Accept-Encoding"] = self._urllib3.util.SKIP_HEADER
        pool = self._manager.connection_from_url(url.url)
        status, answered = self._wire.send(pool, outgoing.method, url.request_uri, outgoing.body, headers)
        return status, answered.get("Retry-After")

    def _tell(self, task: Task, error: Exception) -> None:
        """Say why attempts fail, now and then."""
        now, where = time.monotonic(), task.queue
        if now >= self._told.get(where, 0.0):
            self._told[where] = now + QUIET
            logger.warning("a call of queue %s failed, and its task will be tried again: %s", where, error)
