"""That another delivery is in the way."""

from __future__ import annotations


class BusyError(Exception):
    """Another delivery is in the way; try again soon. It was no attempt.

    Args:
        free_in: seconds after which it is out of the way, if nothing more is heard of it; None: nobody can tell.
    """

    def __init__(self, message: str = "", *, free_in: float | None = None) -> None:
        super().__init__(message)
        self.free_in = free_in


class ShardBusyError(BusyError):
    """The shard is locked by another delivery, or the database undid the slice to let others go on."""
