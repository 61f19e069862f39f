"""What proves a call that the embedded engine makes by HTTP: facts of the delivery, and a signature over them.

Signed is everything that the receiver believes: method, path, query, content type, the facts (queue, task, attempt,
time, the body's digest and more) and the header of the task itself. The body's digest stands in the facts, so that
the headers are proven before a byte of the body is read.

Whoever knows SECRET_KEY can sign. SECRET_KEY_FALLBACKS are accepted and never signed with. A signature holds for five
minutes: within them the very same call can be made again, as any queue may do.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from django.conf import settings as django_settings
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.encoding import repercent_broken_unicode

from soc_tasks.values import MAX_SECONDS, Delivery

VERSION: Final = "v1"
#: Of its own, so that no other signature of the site fits here.
SALT: Final = "soc_tasks.signatures.dispatch"
#: Seconds that the clocks of both sides, and the way between them, may be apart.
TOLERANCE: Final = 300
#: The facts are some 300 characters beside the names of queue and task.
MAX_FACTS: Final = 4000

_SIGNATURE = re.compile(rf"{VERSION}=([0-9a-f]{{64}})", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_encoder: Final = json.JSONEncoder(separators=(",", ":"))


class StaleError(ValueError):
    """The signature is genuine, and was made at another time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signature covers.

    Args:
        method: HTTP method.
        path: path of the URL, script prefix included, unquoted as the receiver routes it.
        query: query string as it is sent.
        content_type: value of that header.
        facts: value of the delivery header.
        meta: value of the meta header.
    """

    method: str
    path: str
    query: str
    content_type: str
    facts: str
    meta: str

    def message(self) -> bytes:
        """Return the bytes to sign: each field behind its length, so that none can flow into the next."""
        parts = (VERSION, self.method, self.path, self.query, self.content_type, self.facts, self.meta)
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def unquote_path(path: str) -> str:
    """Return a quoted path as Django sees it when it comes in (`request.path`)."""
    return repercent_broken_unicode(unquote_to_bytes(path)).decode()


def _mac(signed: Signed, key: Any) -> str:
    return salted_hmac(SALT, signed.message(), secret=key, algorithm="sha256").hexdigest()


def sign(signed: Signed) -> str:
    """Return the value of the signature header, by SECRET_KEY."""
    return f"{VERSION}={_mac(signed, django_settings.SECRET_KEY)}"


def is_genuine(signature: str, signed: Signed) -> bool:
    """Tell whether a signature was made for this by SECRET_KEY or one of SECRET_KEY_FALLBACKS.

    Args:
        signature: value of the header, whatever it holds.
        signed: what it should cover.
    """
    match = _SIGNATURE.fullmatch(signature)
    if match is None:
        return False
    keys = [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]
    # All of them: the time tells nothing of which one it was.
    return sum(constant_time_compare(match[1], _mac(signed, key)) for key in keys if key) > 0


def digest(body: bytes) -> str:
    """Return what stands for a body in the facts."""
    return hashlib.sha256(body).hexdigest()


def is_body(body: bytes, expected: str) -> bool:
    """Tell whether a body is the one that was signed."""
    return constant_time_compare(digest(body), expected)


def write_facts(delivery: Delivery, body: bytes, now: float | None = None) -> str:
    """Return the value of the delivery header.

    Args:
        delivery: what the queue knows of the call.
        body: what is POSTed.
        now: seconds since the epoch; None: the present.
    """
    facts: dict[str, Any] = {
        "queue": delivery.queue,
        "task": delivery.name,
        "attempt": delivery.retry_count,
        "responses": delivery.execution_count,
        "last": delivery.is_last_attempt,
        # Monotonic clocks of two machines have nothing to do with each other.
        "seconds": round(max(0.0, delivery.deadline - time.monotonic()), 3),
        "time": round(time.time() if now is None else now, 3),
        "body": digest(body),
    }
    if delivery.eta is not None:
        facts["eta"] = delivery.eta.isoformat()
    if delivery.previous_status is not None:
        facts["previous"] = delivery.previous_status
    return _encoder.encode(facts)


def read_facts(text: str, now: float | None = None) -> tuple[Delivery, str]:
    """Return the delivery that a proven header tells of, and the digest of the body that belongs to it.

    Args:
        text: value of the delivery header, its signature judged.
        now: seconds since the epoch; None: the present.

    Raises:
        StaleError: it was signed more than five minutes before or after `now`.
        ValueError: another release wrote it, which this one does not understand.
    """
    try:
        facts = json.loads(text)
        age = (time.time() if now is None else now) - float(facts["time"])
        if not abs(age) <= TOLERANCE:
            raise StaleError(f"it was signed {age:.0f} s ago")
        eta = datetime.fromisoformat(facts["eta"]) if "eta" in facts else None
        previous = int(facts["previous"]) if "previous" in facts else None
        names = (facts["queue"], facts["task"])
        if not all(isinstance(name, str) for name in names) or not _DIGEST.fullmatch(facts["body"]):
            raise ValueError("queue, task or digest are malformed")
        delivery = Delivery(
            queue=facts["queue"],
            name=facts["task"],
            retry_count=int(facts["attempt"]),
            execution_count=int(facts["responses"]),
            eta=eta,
            previous_status=previous,
            is_last_attempt=facts["last"] is True,
            deadline=time.monotonic() + min(max(0.0, float(facts["seconds"])), MAX_SECONDS),
        )
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the header is malformed: {error!r}") from error
    return delivery, facts["body"]
