"""Tokens that let their holder see the progress of one iteration for a while: signed by SECRET_KEY, and nothing else.

SECRET_KEY_FALLBACKS are accepted and never signed with. Whoever has a token sees what it says, and can do nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from django.core.signing import BadSignature, Signer

from soc_tasks.logic.iterations import Iteration
from soc_tasks.values import TaskHandle

#: Of its own, so that no other signature of the site fits here, nor this one elsewhere.
SALT: Final = "soc_tasks.progress"
#: Seconds for which a token holds, unless whoever makes it says otherwise.
MAX_AGE: Final = 86400.0
#: Longer than any token is: what is longer is not even looked at.
MAX_LENGTH: Final = 1000


class BadTokenError(ValueError):
    """The token is not ours, or its time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What a token says.

    Args:
        iteration: the one iteration whose progress may be seen.
        language: of the texts, as Django names it; "": that of the request.
        shards: whether each shard may be seen, and why it is held back.
    """

    iteration: str
    language: str = ""
    shards: bool = False


def find_id(what: Any) -> str:
    """Return the id of an iteration.

    Args:
        what: the id itself, the handle of the task that starts it, or an `Iteration`.

    Raises:
        TypeError: it is none of these.
        ValueError: the handle is of a task that starts no iteration, or the id is empty.
    """
    if isinstance(what, TaskHandle):
        if what.iteration is None:
            raise ValueError(f"The task {what.name!r} starts no iteration, and so has no progress to show.")
        return what.iteration
    if isinstance(what, Iteration):
        return what.id
    if not isinstance(what, str):
        raise TypeError(
            f"Progress is shown of an iteration: pass what startTask returned, its .iteration, or an Iteration, "
            f"not {what!r:.100}."
        )
    if not what:
        raise ValueError("Progress is shown of an iteration, and its id is empty.")
    return what


def make_token(permit: Permit, max_age: float = MAX_AGE) -> str:
    """Return a token, in characters that need no quoting in a URL.

    Args:
        permit: what it says.
        max_age: seconds for which it holds.

    Raises:
        ValueError: `max_age` is not above 0.
    """
    if isinstance(max_age, bool) or not isinstance(max_age, (int, float)) or not 0 < max_age < float("inf"):
        raise ValueError(f"max_age must be seconds above 0, not {max_age!r}.")
    expires = int(time.time() + max_age) + 1
    value = [permit.iteration, expires, permit.language, permit.shards]
    return Signer(salt=SALT).sign_object(value)


def read_token(token: str) -> Permit:
    """Return what a token says.

    Raises:
        BadTokenError: it was not signed by this site for this, or its time is over.
    """
    if len(token) > MAX_LENGTH:
        raise BadTokenError("it is too long")
    try:
        iteration, expires, language, shards = Signer(salt=SALT).unsign_object(token)
        is_over = int(expires) <= time.time()
    except BadSignature as error:
        raise BadTokenError("its signature does not fit") from error
    except (TypeError, ValueError) as error:
        raise BadTokenError("another release wrote it, which this one does not understand") from error
    if is_over:
        raise BadTokenError("its time is over")
    return Permit(iteration=iteration, language=language, shards=shards)
