"""The header of ours, as a request has it.

Straight from the environ: `request.headers` builds a mapping of all headers, which costs a tenth of a call.
"""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest
from django.http.request import HttpHeaders

from soc_tasks.meta import Meta
from soc_tasks.values import META_HEADER

_KEY: Final = HttpHeaders.to_wsgi_name(META_HEADER)


def get_header(request: HttpRequest) -> str:
    """Return the header as it came, or ""."""
    header: str = request.META.get(_KEY, "")
    return header


def read_header(request: HttpRequest) -> Meta | None:
    """Return what the header says, or None where it says nothing that can be read."""
    try:
        return Meta.from_header(get_header(request))
    except ValueError:
        return None
