"""A call that the embedded engine makes by HTTP: headers and time are judged first, then the length, then the body."""

from __future__ import annotations

import logging
from typing import Final

from django.conf import settings as django_settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, RawPostDataException, UnreadablePostError

from soc_tasks.conf import get_settings
from soc_tasks.signatures import MAX_FACTS, Signed, StaleError, is_body, is_genuine, read_facts
from soc_tasks.values import DELIVERY_HEADER, SIGNATURE_HEADER, Delivery
from soc_tasks.views.headers import get_header

logger = logging.getLogger("soc_tasks")

REFUSED: Final = 403
#: The call is genuine and its body broke off on the way: it should come again.
BROKEN_OFF: Final = 500
_VERDICT: Final = "_soc_tasks_signed"


def judge_length(request: HttpRequest) -> int | None:
    """Return the status of the refusal of a body that is announced as too long, or in no number; else None."""
    text = request.META.get("CONTENT_LENGTH") or ""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        return 400
    most = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    # int() of a text of thousands of digits would be refused; a length of over 18 digits is too long in any case.
    if len(text) > 18 or (most is not None and int(text) > most):
        return 413
    return None


def judge_signed(request: HttpRequest) -> Delivery | int:
    """Return the delivery that a request's signature proves, or the status of the refusal; judged once."""
    verdict: Delivery | int | None = getattr(request, _VERDICT, None)
    if verdict is None:
        verdict = _judge(request)
        setattr(request, _VERDICT, verdict)
    return verdict


def _judge(request: HttpRequest) -> Delivery | int:
    proven = _judge_headers(request)
    if proven is None:
        return REFUSED
    delivery, digest = proven
    if status := judge_length(request):
        return status
    try:
        body = request.body
    except RequestDataTooBig:
        # Without a length (ASGI, in chunks) it is Django that counts.
        return 413
    except RawPostDataException:
        # Only a multipart form can be read before, which no task is.
        return REFUSED
    except UnreadablePostError:
        return BROKEN_OFF
    if len(body) < int(request.META.get("CONTENT_LENGTH") or 0):
        return BROKEN_OFF
    if not is_body(body, digest):
        logger.warning("a signed call of task %s came with another body, and is refused", delivery.name)
        return REFUSED
    return delivery


def _judge_headers(request: HttpRequest) -> tuple[Delivery, str] | None:
    """Return what the headers prove, and the digest of the body that belongs to them; nothing is read."""
    signature, facts = request.headers.get(SIGNATURE_HEADER), request.headers.get(DELIVERY_HEADER)
    # The worker sends no Authorization: where there is one, somebody else had a hand in it.
    if signature is None or facts is None or "Authorization" in request.headers or len(facts) > MAX_FACTS:
        return None
    if get_settings().backend != "embedded":
        return None
    signed = Signed(
        method=request.method or "",
        path=request.path,
        query=request.META.get("QUERY_STRING", ""),
        content_type=request.META.get("CONTENT_TYPE", ""),
        facts=facts,
        meta=get_header(request),
    )
    if not is_genuine(signature, signed):
        logger.info("a signed call of %s is refused: its signature does not fit", request.path)
        return None
    try:
        return read_facts(facts)
    except StaleError as error:
        logger.warning("a signed call of %s is refused: %s; do the clocks agree?", request.path, error)
    except ValueError as error:
        logger.warning("a signed call of %s is refused: %s", request.path, error)
    return None
