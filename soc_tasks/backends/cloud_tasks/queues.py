"""CLOUD_TASKS_QUEUES against the queues of the service: what differs, and how to put that right.

Only what the settings say is compared and written. Queues that the settings do not name are never touched.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soc_tasks.backends.cloud_tasks.backend import location_path
from soc_tasks.backends.cloud_tasks.service import open_channel
from soc_tasks.backends.cloud_tasks.targets import compare_targets, find_mask, keep_rest, write_target
from soc_tasks.backends.cloud_tasks.wire import write_retry
from soc_tasks.conf import get_queues
from soc_tasks.errors import BackendUnavailableError
from soc_tasks.values import QueueOptions

logger = logging.getLogger("soc_tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done to one queue.

    Args:
        queue: its name.
        exists: whether the service knows it.
        fields: by path of the field: what it is there, and what it should be.
        message: the queue as it should be.
    """

    queue: str
    exists: bool
    fields: Mapping[str, tuple[Any, Any]]
    message: Any

    @property
    def mask(self) -> list[str]:
        """Return the fields that are written."""
        return list(dict.fromkeys(find_mask(path) for path in self.fields))

    def as_dict(self) -> dict[str, Any]:
        """Return the change ready for JSON."""
        fields = {
            path: {"found": _show(found), "wanted": _show(wanted)} for path, (found, wanted) in self.fields.items()
        }
        return {"queue": self.queue, "action": "update" if self.exists else "create", "fields": fields}

    def describe(self) -> str:
        """Return the change in one line."""
        if not self.exists:
            what = ", ".join(f"{path} = {wanted}" for path, (_, wanted) in self.fields.items())
            return f"create {self.queue}" + (f" with {what}" if what else "")
        what = ", ".join(f"{path} {found} -> {wanted}" for path, (found, wanted) in self.fields.items())
        return f"update {self.queue}: {what}"


class QueueService:
    """The queues of one location.

    Args:
        client: a `CloudTasksClient`; None: one of its own.
        parent: full name of the location; None: that of the settings.
    """

    #: Full name of the location.
    parent: str

    def __init__(self, client: Any = None, parent: str | None = None) -> None:
        self.parent = parent or location_path()
        self._client = client or make_client()

    @property
    def client(self) -> Any:
        """Return the official client."""
        return self._client

    def plan(self) -> list[Change]:
        """Return what differs, by name (raises as `compare`)."""
        return self.compare()[0]

    def compare(self) -> tuple[list[Change], dict[str, Any]]:
        """Return what differs, by name, and the queues that the service has, by full name.

        Raises:
            BackendUnavailableError: the service cannot be asked; the message says why.
        """
        with _translated("read the queues"):
            found = {queue.name: queue for queue in self._client.list_queues(parent=self.parent)}
        changes = []
        for name, options in sorted(get_queues().items()):
            path = f"{self.parent}/queues/{name}"
            wanted = write_queue(options, path)
            actual = found.get(path)
            there = None if actual is None else type(actual).pb(actual)
            fields = dict(_compare(there, wanted))
            if there is not None:
                keep_rest(wanted, there)
            if actual is None or fields:
                changes.append(Change(queue=name, exists=actual is not None, fields=fields, message=wanted))
        return changes, found

    def apply(self, changes: Sequence[Change]) -> None:
        """Create and update queues.

        Raises:
            BackendUnavailableError: the service refused one of them; those before it are done.
        """
        from google.cloud.tasks_v2 import types
        from google.protobuf.field_mask_pb2 import FieldMask

        for change in changes:
            queue = types.Queue.wrap(change.message)
            with _translated(f"{'update' if change.exists else 'create'} the queue {change.queue!r}"):
                if change.exists:
                    self._client.update_queue(queue=queue, update_mask=FieldMask(paths=change.mask))
                else:
                    self._client.create_queue(parent=self.parent, queue=queue)
            logger.info("queue %s: %s", change.queue, change.describe())


def make_client() -> Any:
    """Return the official client, connected to the service or to the server that `TASKS_EMULATOR_HOST` names."""
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=open_channel()))


@contextmanager
def connect() -> Iterator[Any]:
    """Give a client, whose channel is closed with the block."""
    client = make_client()
    try:
        yield client
    finally:
        client.transport.close()


def write_queue(options: QueueOptions, path: str) -> Any:
    """Return the message of a queue as the settings want it; what they do not say is not set."""
    from google.cloud.tasks_v2 import types

    message = types.Queue.pb()(name=path)
    if options.rate_per_second is not None:
        message.rate_limits.max_dispatches_per_second = options.rate_per_second
    if options.rate_max_concurrent is not None:
        message.rate_limits.max_concurrent_dispatches = options.rate_max_concurrent
    if options.retry_given.as_dict():
        write_retry(message.retry_config, options.retry_given)
    if options.log_sampling_ratio is not None:
        message.stackdriver_logging_config.sampling_ratio = options.log_sampling_ratio
    for name, value in (options.routing or {}).items():
        setattr(message.app_engine_routing_override, name, value)
    write_target(message, options)
    return message


def _compare(actual: Any, wanted: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the fields that are set in `wanted` and differ, by their paths."""
    for field, value in wanted.ListFields():
        path = f"{prefix}{field.name}"
        if path == "name":
            continue
        there = None if actual is None else getattr(actual, field.name)
        if path == "http_target":
            yield from compare_targets(there if there is not None else type(value)(), value)
        elif field.message_type is not None and field.message_type.full_name != "google.protobuf.Duration":
            yield from _compare(there, value, f"{path}.")
        elif _plain(there) != _plain(value):
            yield path, (_plain(there), _plain(value))


def _show(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _plain(value: Any) -> Any:
    """Return a value as it is written in the settings."""
    if hasattr(value, "ToNanoseconds"):
        return value.ToNanoseconds() / 1e9
    return round(value, 9) if isinstance(value, float) else value


@contextmanager
def _translated(what: str) -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise BackendUnavailableError(
            f"Cloud Tasks did not let this process {what}: {error}. It needs the role roles/cloudtasks.queueAdmin, the "
            "API switched on, and CLOUD_TASKS_PROJECT_ID and CLOUD_TASKS_LOCATION that exist."
        ) from error


# When a process begins to serve.

_began = threading.Lock()
_done = False


def update_in_background() -> threading.Thread | None:
    """Put the queues right in a thread, once in a process; what fails is logged and stops nobody."""
    global _done
    with _began:
        if _done:
            return None
        _done = True
    thread = threading.Thread(target=_update, name="soc_tasks-queues", daemon=True)
    thread.start()
    return thread


def _update() -> None:
    try:
        with _one_at_a_time():
            service = QueueService()
            service.apply(service.plan())
    except Exception as error:
        logger.error(
            "the queues of CLOUD_TASKS_QUEUES were not updated; `manage.py tasks queues --plan` tells more: %s", error
        )


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let the processes of this machine update one after the other; the later ones find nothing to do."""
    with ExitStack() as held:
        try:
            import fcntl

            file = held.enter_context((Path(tempfile.gettempdir()) / "soc_tasks-queues.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            # Another user's file, or no such locks here: the same changes twice do no harm.
            logger.debug("queues are updated without a lock")
        yield
