"""Who this process is to Google, and what that account may do with the queues."""

from __future__ import annotations

from typing import Any, Final

from soc_tasks.backends.cloud_tasks.backend import queue_path
from soc_tasks.backends.cloud_tasks.service import get_service
from soc_tasks.conf import get_queues
from soc_tasks.errors import BackendUnavailableError, ConfigurationError

#: A permission that stands for what is needed, and the smallest role that holds it.
ROLES: Final = {
    "cloudtasks.tasks.create": "roles/cloudtasks.enqueuer",
    "cloudtasks.tasks.list": "roles/cloudtasks.viewer",
    "cloudtasks.tasks.run": "roles/cloudtasks.taskRunner",
    "cloudtasks.tasks.delete": "roles/cloudtasks.taskDeleter",
    "cloudtasks.queues.update": "roles/cloudtasks.queueAdmin",
}


def find_account() -> str:
    """Return the e-mail address of the account whose credentials this process has.

    Raises:
        ConfigurationError: it has none.
    """
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials: Any = google.auth.default()[0]
        account = getattr(credentials, "service_account_email", None)
        if account == "default":
            # A machine of Google's tells its account with the first token.
            credentials.refresh(Request())
            account = credentials.service_account_email
    except GoogleAuthError as error:
        raise ConfigurationError(f"There are no credentials for Google Cloud: {error}") from error
    return str(account or "the user who is logged in")


def find_missing_roles(client: Any = None) -> dict[str, str]:
    """Return the roles that this process's account should have, each with the permission that it lacks.

    Args:
        client: a `CloudTasksClient`; None: this process's.

    Raises:
        BackendUnavailableError: the service did not tell.
    """
    from google.api_core.exceptions import GoogleAPIError

    name = min(get_queues())
    try:
        answer = (client or get_service().client).test_iam_permissions(
            request={"resource": queue_path(name), "permissions": list(ROLES)}
        )
    except GoogleAPIError as error:
        raise BackendUnavailableError(f"Cloud Tasks did not tell what this account may do: {error}") from error
    return {role: permission for permission, role in ROLES.items() if permission not in answer.permissions}
