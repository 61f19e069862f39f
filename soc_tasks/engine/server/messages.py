"""The messages of the API, as protobuf classes; google's client library is imported at first use."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from soc_tasks.errors import ConfigurationError


@lru_cache(maxsize=1)
def api() -> Any:
    """Return an object with the message classes of google.cloud.tasks.v2 by name.

    Raises:
        ConfigurationError: what the server needs is not installed, or too old.
    """
    try:
        import cryptography  # noqa: F401 - asked for here, used later
        import grpc  # noqa: F401
        import urllib3  # noqa: F401
        from google.cloud.tasks_v2 import types
    except ImportError as error:
        raise ConfigurationError(
            f"`tasks serve` needs {error.name}, which is not installed: pip install 'soc-tasks[serve]'"
        ) from error
    found = {name: getattr(types, name) for name in types.__all__}
    messages = {name: kind.pb() for name, kind in found.items() if hasattr(kind, "pb")}
    if "BatchCreateTasksRequest" not in messages or "retry_config" not in messages["Task"].DESCRIPTOR.fields_by_name:
        raise ConfigurationError(
            "`tasks serve` needs a newer google-cloud-tasks, which has its messages: pip install 'soc-tasks[serve]'"
        )
    return SimpleNamespace(**messages)


@lru_cache(maxsize=1)
def methods() -> dict[int, str]:
    """Return the names of HTTP methods by their numbers in the API."""
    field = api().HttpRequest.DESCRIPTOR.fields_by_name["http_method"]
    return {number: value.name for number, value in field.enum_type.values_by_number.items()}


def set_micros(timestamp: Any, micros: int) -> None:
    """Set a Timestamp to microseconds since the epoch."""
    timestamp.FromMicroseconds(micros)


def seconds_of(duration: Any) -> float:
    """Return a Duration in seconds."""
    seconds: float = duration.seconds + duration.nanos / 1e9
    return seconds
