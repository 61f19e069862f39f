"""Google Cloud: project, account, and what IAM lets that account do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from soc_tasks.backends.cloud_tasks.backend import location_path
from soc_tasks.backends.cloud_tasks.permissions import find_account, find_missing_roles
from soc_tasks.backends.cloud_tasks.service import EMULATOR_VARIABLE
from soc_tasks.conf import get_settings
from soc_tasks.errors import ConfigurationError, SocTasksError
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "google"


def examine() -> Iterator[Finding]:
    """Look at the settings of Cloud Tasks, credentials and roles."""
    settings = get_settings()
    if settings.backend != "cloud_tasks":
        return
    try:
        parent = location_path()
    except ConfigurationError as error:
        yield Finding(FAMILY, FAIL, str(error), "Set CLOUD_TASKS_PROJECT_ID and CLOUD_TASKS_LOCATION.")
        return
    if host := os.environ.get(EMULATOR_VARIABLE):
        yield Finding(FAMILY, OK, f"{EMULATOR_VARIABLE} is set: tasks go to {host}, as of {parent}, and not to Google.")
        return
    try:
        account = find_account()
        missing = find_missing_roles()
    except SocTasksError as error:
        yield Finding(FAMILY, FAIL, str(error), "gcloud auth application-default login")
        return
    project = parent.split("/")[1]
    for role, permission in missing.items():
        yield Finding(
            FAMILY,
            FAIL if permission == "cloudtasks.tasks.create" else WARN,
            f"{account} lacks {permission} on {parent}.",
            f"gcloud projects add-iam-policy-binding {project} --member=serviceAccount:{account} --role={role}",
        )
    if not missing:
        yield Finding(FAMILY, OK, f"{account} may create, show and steer tasks and queues in {parent}.")
    if settings.target == "http" and settings.service_account and settings.service_account != account:
        # No API tells whether one account may act as another.
        yield Finding(
            FAMILY,
            OK,
            f"Tasks are sent with tokens of {settings.service_account}, which {account} must be allowed to act as: "
            f"gcloud iam service-accounts add-iam-policy-binding {settings.service_account} "
            f"--member=serviceAccount:{account} --role=roles/iam.serviceAccountUser",
        )
