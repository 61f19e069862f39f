"""The client of Datastore that the settings ask for: one for each process, which its threads share."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from soc_tasks.conf import get_settings
from soc_tasks.errors import ConfigurationError
from soc_tasks.state.transactions import is_client

#: How the client is told of an emulator, and of the project.
EMULATOR_VARIABLE: Final = "DATASTORE_EMULATOR_HOST"
PROJECT_VARIABLES: Final = ("DATASTORE_DATASET", "GOOGLE_CLOUD_PROJECT")


def get_client() -> Any:
    """Return this process's client of Datastore, whose transactions batches and tasks can be part of.

    Raises:
        ConfigurationError: the settings and the environment make none.
    """
    settings = get_settings()
    # No channel outlives a fork.
    return _make_client(
        os.getpid(),
        os.environ.get(EMULATOR_VARIABLE),
        settings.datastore_client,
        settings.datastore_project,
        settings.datastore_database,
        settings.datastore_namespace,
    )


@lru_cache(maxsize=1)
def _make_client(
    process: int,
    emulator: str | None,
    path: str | None,
    project: str | None,
    database: str | None,
    namespace: str | None,
) -> Any:
    if path is not None:
        return _call(path)
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import datastore

    if project is None and not any(os.environ.get(name) for name in PROJECT_VARIABLES):
        project = getattr(django_settings, "CLOUD_TASKS_PROJECT_ID", None)
    try:
        return datastore.Client(project=project, database=database, namespace=namespace)
    except (GoogleAuthError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"There is no client of Datastore: {error} Set SOC_TASKS['DATASTORE_PROJECT'], and give the process "
            f"credentials; for an emulator set the environment's {EMULATOR_VARIABLE}."
        ) from error


def _call(path: str) -> Any:
    try:
        made = import_string(path)()
    except ImportError as error:
        raise ConfigurationError(
            f"SOC_TASKS['DATASTORE_CLIENT'] is {path!r}, which cannot be imported: {error}."
        ) from error
    if not is_client(made):
        raise ConfigurationError(
            f"SOC_TASKS['DATASTORE_CLIENT'] is {path!r}, which returned {made!r:.100}; it must return a "
            "google.cloud.datastore.Client."
        )
    return made
