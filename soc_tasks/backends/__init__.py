"""Backends: where tasks wait. `get_backend()` returns the one that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from soc_tasks.conf import get_settings
from soc_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from soc_tasks.backends.base import BaseBackend

_BUILT_IN = {
    "cloud_tasks": "soc_tasks.backends.cloud_tasks.backend.CloudTasksBackend",
    "embedded": "soc_tasks.backends.embedded.EmbeddedBackend",
    "memory": "soc_tasks.backends.memory.MemoryBackend",
}


#: Backends that test tools put in the place of the settings', whatever tests do to these; the last one counts.
_in_place: list[BaseBackend] = []


@contextmanager
def backend_in_place(backend: BaseBackend) -> Iterator[None]:
    """Have `get_backend` return `backend` for the block, in all threads; for test tools."""
    _in_place.append(backend)
    try:
        yield
    finally:
        _in_place.remove(backend)


def get_backend() -> BaseBackend:
    """Return the backend that `SOC_TASKS["BACKEND"]` names.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    return _in_place[-1] if _in_place else _load_backend()


@lru_cache(maxsize=1)
def _load_backend() -> BaseBackend:
    name = get_settings().backend
    try:
        backend: BaseBackend = import_string(_BUILT_IN.get(name, name))()
    except ImportError as error:
        raise ConfigurationError(
            f'SOC_TASKS["BACKEND"] is {name!r}, which cannot be imported: {error}. '
            f"Use one of {', '.join(_BUILT_IN)}, or the dotted path of a backend."
        ) from error
    return backend


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SOC_TASKS":
        _load_backend.cache_clear()


setting_changed.connect(_forget, dispatch_uid="soc_tasks.backends")
