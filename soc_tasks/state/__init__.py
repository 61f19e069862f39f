"""State: payloads, runs, outbox, receipts and dead letters. `get_state()` returns the one that the settings name."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed

from soc_tasks.conf import get_settings

if TYPE_CHECKING:
    from soc_tasks.state.base import BaseState


@lru_cache(maxsize=1)
def get_state() -> BaseState:
    """Return the state that `SOC_TASKS["STATE"]` names."""
    if get_settings().state == "datastore":
        from soc_tasks.state.datastore import DatastoreState

        return DatastoreState()
    from soc_tasks.state.django import DjangoState  # imports models

    return DjangoState()


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SOC_TASKS":
        get_state.cache_clear()


setting_changed.connect(_forget, dispatch_uid="soc_tasks.state")
