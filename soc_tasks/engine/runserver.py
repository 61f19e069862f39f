"""The worker inside `manage.py runserver`, so that a newcomer starts one process."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Final

from django.apps import apps
from django.db import Error, connections
from django.utils.module_loading import import_string

from soc_tasks.conf import get_settings
from soc_tasks.engine.loglines import show_log_lines
from soc_tasks.engine.store.base import Store

logger = logging.getLogger("soc_tasks.engine")

#: Seconds between looks while the tables are missing.
PATIENCE: Final = 2.0
#: Threads for tasks; the same process serves pages.
THREADS: Final = 4
#: Options that may stand before the command, with their value as an argument of its own.
_WITH_VALUE: Final = {"--settings", "--pythonpath", "-v", "--verbosity"}
#: Seconds that running tasks get when the server ends or reloads.
GRACE: Final = 1.0


def start_if_serving() -> None:
    """Start a worker in this process if it is the one in which `runserver` serves."""
    if is_serving(sys.argv, dict(os.environ)):
        threading.Thread(target=_work, name="soc_tasks-engine", daemon=True).start()


def is_serving(arguments: list[str], environment: dict[str, str]) -> bool:
    """Tell whether a process serves: under autoreload the child does, else the process itself.

    Args:
        arguments: its command line.
        environment: its environment.
    """
    if _command(arguments[1:]) != "runserver" or {"-h", "--help", "--version"} & set(arguments[1:]):
        return False
    return "--noreload" in arguments or environment.get("RUN_MAIN") == "true"


def _command(arguments: list[str]) -> str | None:
    """Return the first argument that is neither an option of Django's nor an option's value."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return argument
        if argument in _WITH_VALUE:
            next(rest, None)
    return None


def _work() -> None:
    """Wait for the site to be loaded and its tables to be there, then work until the process ends."""
    apps.ready_event.wait()
    if not get_settings().runserver:
        return
    # By name: the backend lies above the engine, and registers with it what wants to be told.
    backend = import_string("soc_tasks.backends.get_backend")()
    store: Store | None = getattr(backend, "store", None)
    if store is None:
        return
    ended = threading.Event()
    atexit.register(ended.set)
    if not _wait_for_tables(store, ended):
        return
    from soc_tasks.engine.worker import Worker

    show_log_lines(logging.INFO)
    try:
        worker = Worker(store.alias, threads=THREADS, grace=GRACE, ready=_say_ready)
    except Exception:
        logger.exception("tasks are not run by this server; `manage.py tasks run` would tell the same")
        return
    done = threading.Event()

    def hand_back() -> None:
        worker.stop()
        done.wait(GRACE + 1.0)

    atexit.register(hand_back)
    try:
        worker.run()
    except Exception:
        logger.exception("the worker of this server failed; tasks wait for `manage.py tasks run` or the next start")
    finally:
        done.set()


def _wait_for_tables(store: Store, ended: threading.Event) -> bool:
    said = False
    while not ended.is_set():
        with suppress(Error):
            if store.is_ready():
                return True
        connections.close_all()
        if not said:
            said = True
            logger.warning(
                "tasks wait: the engine's tables are missing; run `manage.py migrate --database %s`", store.alias
            )
        ended.wait(PATIENCE)
    return False


def _say_ready() -> None:
    logger.info("this server runs tasks as well; `manage.py tasks run` does it in processes of their own")
