"""What is done on the console's pages: each action leaves a line in the audit log, whatever came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import Error
from django.http import HttpRequest

from soc_tasks.errors import FatalTaskError, SocTasksError
from soc_tasks.state import get_state
from soc_tasks.state.audit import audit_alias, begin_entry, end_entry

logger = logging.getLogger("soc_tasks")

#: What an action can be refused for; anything else is a fault, and noted as such.
REFUSALS = (SocTasksError, FatalTaskError, LookupError, ValueError, TypeError, Error)


def refuse(request: HttpRequest, action: str) -> PermissionDenied:
    """Return the error for what a user may not do; what would have changed something is noted in the audit log."""
    if request.method == "POST":
        user: Any = request.user
        begin_entry(str(user.pk), user.get_username(), action, request.path, "refused: no permission")
        logger.warning("%s by %s was refused: no permission for %s", action, user.get_username(), request.path)
    return PermissionDenied()


def perform(request: HttpRequest, action: str, target: str, work: Callable[[], str], *, together: bool = True) -> bool:
    """Do something for a user, note it in the audit log, and tell them what came of it.

    Args:
        request: whose user does it.
        action, target: what, to what, for the log.
        work: does it; returns what came of it, for people.
        together: whether it commits together with its line in the log, where one database can do that. Else the line
            is written before, and completed after: for what takes many transactions.

    Returns:
        Whether it was done; what it was refused for is told to the user.
    """
    user: Any = request.user
    who = (str(user.pk), user.get_username())
    one = together and get_state().alias == audit_alias()
    entry = 0 if one else begin_entry(*who, action, target)
    try:
        with get_state().atomic() if one else nullcontext():
            outcome = work()
            if one:
                begin_entry(*who, action, target, outcome)
    except Exception as error:
        known = isinstance(error, REFUSALS)
        outcome = f"refused: {error}" if known else f"failed: {type(error).__name__}"
        if one:
            begin_entry(*who, action, target, outcome)
        else:
            end_entry(entry, outcome)
        if not known:
            raise
        logger.warning("%s by %s of %s was refused: %s", action, who[1], target, error)
        messages.error(request, str(error))
        return False
    if not one:
        end_entry(entry, outcome)
    logger.info("%s by %s: %s: %s", action, who[1], target, outcome)
    messages.success(request, outcome)
    return True
