"""Cloud Tasks on this machine for as long as it is needed: `manage.py tasks sandbox`, and `sandbox` for tests.

With `sandbox` a test has tasks that really travel: created by gRPC, called by HTTP, proven by a token.

    from soc_tasks.sandbox import sandbox

    def test_greeting(live_server):
        with sandbox(live_server.url) as cloud:
            startTask("greet", {"greeting": "Hello"})
            cloud.run_until_empty()
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Seconds between looks at the queues.
PAUSE: Final = 0.02
#: Seconds for which the server may take to start on a machine that has much to do.
PATIENCE: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A Cloud Tasks of one's own that is running.

    Args:
        host: what TASKS_EMULATOR_HOST says meanwhile.
        issuer: who its tokens say they come from, and the address of its keys.
        certs_url: where the keys are that its tokens are judged by.
        url: the site that it calls.
        paused: whether tasks run in `run_until_empty` only.
        client: the official client, connected to it.
        parent: full name of the location of its queues.
    """

    host: str
    issuer: str
    certs_url: str
    url: str
    paused: bool
    client: Any
    parent: str

    def list_tasks(self) -> list[Any]:
        """Return the tasks that wait or run, as the client gives them."""
        return [task for name in self._queues() for task in self.client.list_tasks(parent=name)]

    def run_until_empty(self, timeout: float = 30.0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until no task waits or runs any more, those included that tasks start.

        Args:
            timeout: seconds; a task that is due later, or fails again and again, takes longer.
            sleep: waits between looks.

        Raises:
            TimeoutError: it names what is still there.
        """
        end = time.monotonic() + timeout
        self._hold_back(False)
        try:
            while tasks := self.list_tasks():
                if time.monotonic() >= end:
                    told = "; ".join(_describe(task) for task in tasks[:5])
                    raise TimeoutError(f"After {timeout:g} s {len(tasks)} tasks are still there: {told}")
                sleep(PAUSE)
        finally:
            self._hold_back(True)

    def _queues(self) -> list[str]:
        return [queue.name for queue in self.client.list_queues(parent=self.parent)]

    def _hold_back(self, hold: bool) -> None:
        """Pause all queues, or let them run, if that is wanted."""
        if self.paused:
            for name in self._queues():
                (self.client.pause_queue if hold else self.client.resume_queue)(name=name)


def _describe(task: Any) -> str:
    text = f"{task.name.partition('/queues/')[2]}, {task.dispatch_count} attempts"
    status = task.last_attempt.response_status
    return text + (f", the last one: {status.message or status.code}" if task.response_count and status.code else "")


@contextmanager
def sandbox(
    url: str,
    *,
    database: str | Path | None = None,
    threads: int = 1,
    paused: bool = False,
    services: Mapping[str, str] | None = None,
) -> Iterator[Sandbox]:
    """Run a Cloud Tasks of one's own beside a site, which is set to use it; for tests with a live server.

    The server is a process of its own, which ends with the block, or with this process. The settings and the
    environment are as before after it.

    Args:
        url: base URL of the site, such as `live_server.url`.
        database: file that keeps queues and tasks; None: one for this block only.
        threads: how many tasks may run at one time; one does where threads share a database in memory.
        paused: whether tasks run in `run_until_empty` only, so that none runs beside the test.
        services: base URLs of other services by name, for `startTask(service=…)`.

    Raises:
        ConfigurationError: the server cannot run.
    """
    from django.conf import settings
    from django.test.utils import override_settings

    from soc_tasks.backends.cloud_tasks.queues import QueueService, connect
    from soc_tasks.sandbox.children import LOOK, start_server
    from soc_tasks.sandbox.site import change_hosts, change_settings, forget, set_variable

    with ExitStack() as stack:
        if database is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="soc_tasks_sandbox_"))
            database = Path(folder) / "cloud-tasks.sqlite3"
        end = time.monotonic() + PATIENCE

        def wait() -> bool:
            time.sleep(LOOK)
            return time.monotonic() >= end

        server = start_server(stack, ("--database", str(database), "--threads", str(threads)), wait)
        stack.callback(forget, server.host, server.certs_url)
        stack.enter_context(set_variable(server.host))
        hosts = change_hosts(settings.ALLOWED_HOSTS, url)
        changed = change_settings(
            getattr(settings, "SOC_TASKS", {}), url=url.rstrip("/"), issuer=server.issuer, services=services or {}
        )
        stack.enter_context(override_settings(SOC_TASKS=changed, ALLOWED_HOSTS=hosts))
        client = stack.enter_context(connect())
        service = QueueService(client)
        service.apply(service.plan())
        made = Sandbox(
            host=server.host,
            issuer=server.issuer,
            certs_url=server.certs_url,
            url=url.rstrip("/"),
            paused=paused,
            client=client,
            parent=service.parent,
        )
        made._hold_back(True)
        yield made


__all__ = ["Sandbox", "sandbox"]
