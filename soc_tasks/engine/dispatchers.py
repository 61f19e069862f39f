"""Which way a task is called: in this process or by HTTP, by the settings."""

from __future__ import annotations

from soc_tasks.conf import get_settings
from soc_tasks.engine.attempts import Dispatch
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.values import Answer, Delivery, Task


class ServiceDispatcher:
    """Calls this site one way, and services that have a name the other.

    Args:
        here: for tasks of this site.
        services: for tasks that were started with a `service`.
    """

    def __init__(self, here: Dispatch, services: Dispatch) -> None:
        self._here = here
        self._services = services
        #: As long as the slower of the two wants.
        self.patience: float = getattr(services, "patience", 0.0)

    def __call__(self, task: Task, delivery: Delivery) -> Answer:
        """Make the call and return its answer."""
        return (self._here if task.service is None else self._services)(task, delivery)


def make_dispatcher() -> Dispatch:
    """Return what makes the calls, as DISPATCH, URL and SERVICES say; in process, the site's middleware is loaded.

    For threads that do nothing but that: in process it leaves the script prefix of its last call.

    Raises:
        ConfigurationError: a URL or urllib3 is missing.
    """
    settings = get_settings()
    if settings.dispatch == "in_process" and not settings.services:
        return InProcessDispatcher(own_threads=True)
    from soc_tasks.engine.http import make_http_dispatcher

    if settings.dispatch == "http":
        return make_http_dispatcher(with_site=True)
    return ServiceDispatcher(InProcessDispatcher(own_threads=True), make_http_dispatcher(with_site=False))
