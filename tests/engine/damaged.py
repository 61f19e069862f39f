"""URLs that break the engine of their process."""

from __future__ import annotations

from soc_tasks.engine.caretaker import Caretaker
from tests.engine.urls import urlpatterns  # noqa: F401


def join(self):
    raise RuntimeError("damaged")


Caretaker.join = join
