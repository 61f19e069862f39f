"""Calls of the view for deferred functions, as the queue makes them."""

from __future__ import annotations

import base64
import json
import zlib
from urllib.parse import urlencode

from django.test import Client

from soc_tasks.logic.calls import sign
from soc_tasks.meta import Meta
from soc_tasks.state import get_state
from soc_tasks.values import DELIVERY_KEY, META_HEADER, OUTCOME_HEADER, Delivery

URL = "/_tasks/deferred/"
START_ID = "0123456789abcdef" * 2
FORM = "application/x-www-form-urlencoded"


def post(body=b"", *, proven=True, content_type=FORM, meta=None, delivery=None, **environ):
    """Make a call as the queue makes it, or as anybody does."""
    header = Meta(start_id=START_ID).to_header() if meta is None else meta
    environ = {"HTTP_X_SOCTASKS_META": header, "CONTENT_TYPE": content_type, **environ}
    if proven:
        environ[DELIVERY_KEY] = Delivery(**{"queue": "default", "name": "made", **(delivery or {})})
    body = urlencode(body).encode() if isinstance(body, dict) else body
    response = Client().generic("POST", URL, body, **environ)
    assert response.content == b""
    return response


def send(task, **more):
    """Deliver a task."""
    return post(task.body, meta=task.headers[META_HEADER], **more)


def outcome(response):
    return response.status_code, response.headers.get(OUTCOME_HEADER, "")


def letters():
    return get_state().list_dead_letters()


def write(**change):
    """Return the form of a call of `note`, with parts of it changed."""
    value = {
        "version": 1,
        "function": {"__soc__": "function", "v": "tests.specimen.functions:note"},
        "args": [1],
        "kwargs": {},
        "atomic": False,
        "using": "default",
        **change,
    }
    return signed(json.dumps({name: part for name, part in value.items() if part is not ...}))


def signed(text, how="payload"):
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode())).decode()
    return {"function": "x", "signature": sign(text), how: packed if how == "packed" else text}
