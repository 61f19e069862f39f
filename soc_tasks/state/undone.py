"""Transactions that a store does not commit: undone for others, or too large."""

from __future__ import annotations

from soc_tasks.errors import FatalTaskError
from soc_tasks.state.base import ShardBusyError


class UndoneError(ShardBusyError):
    """The store undid a whole transaction, so that others could go on: made again, it may succeed."""


class TransactionTooLargeError(FatalTaskError):
    """A transaction would write more than the store takes in one."""
