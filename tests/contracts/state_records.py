"""What the contract of states makes records of."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from soc_tasks.meta import Meta, SliceMessage
from soc_tasks.state.base import DeadLetter
from soc_tasks.values import META_HEADER, FailedItem, Task

RUN = "0123456789abcdef" * 2
OTHER = "e" * 32


class UndoError(Exception):
    """Ends a transaction that is not to commit."""


@contextmanager
def undone(transaction):
    """Open a transaction that does not commit."""
    with pytest.raises(UndoError), transaction as opened:  # noqa: PT012 - the block is the caller's
        yield opened
        raise UndoError


def make_task(message=None, **more):
    meta = Meta(start_id="f" * 32, slice=message)
    return Task(
        **{
            "queue": "default",
            "name": "made",
            "path": "/site/tasks/behave/?a=%C3%BC",
            "script_name": "/site",
            "body": b"\x00\xff",
            "headers": {META_HEADER: meta.to_header(), "X-Trace": "1"},
            "start_id": "f" * 32,
            **more,
        }
    )


def make_letter(message=None, **more):
    return DeadLetter(**{"task": make_task(message), "attempts": 3, "error_type": "a.Error", "error": "why", **more})


def make_message(**more):
    return SliceMessage(**{"iteration": RUN, "shard": 1, "step": 2, "epoch": 1, **more})


def make_item(number=1, iteration=RUN, **more):
    return FailedItem(
        **{
            "iteration": iteration,
            "shard": 1,
            "key": f"[{number}]",
            "entity": f"app.Model {number}",
            "error_type": "ValueError",
            "error": "why",
            "traceback": "a\nb",
            **more,
        }
    )
