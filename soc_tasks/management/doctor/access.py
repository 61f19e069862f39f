"""Access: are the library's URLs there, and can whoever runs the tasks reach their views?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.http.request import validate_host
from django.urls import NoReverseMatch, reverse

from soc_tasks.conf import get_settings
from soc_tasks.logic.urls import find_task_views, name_view
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "access"


def examine() -> Iterator[Finding]:
    """Look at the URL conf, hosts and access checks."""
    try:
        found = reverse("tasks_deferred_handler")
    except NoReverseMatch:
        yield Finding(
            FAMILY,
            WARN,
            "The library's URLs are not part of the site: defer(), progress bars, metrics and the relay need them.",
            'Add path("_tasks/", include("soc_tasks.urls")) to the urlpatterns of ROOT_URLCONF.',
        )
    else:
        yield Finding(FAMILY, OK, f"The library's URLs are at {found.removesuffix('deferred/')}.")
    yield from _examine_views()
    yield from _examine_host()


def _examine_views() -> Iterator[Finding]:
    views = list(find_task_views())
    others = sorted(name_view(view) for view, options in views if not options.takes_queue)
    text = f"The queue may call {len(views) - len(others)} of {len(views)} task views"
    if others:
        text += f"; only sessions and cron start {', '.join(others)}"
    yield Finding(FAMILY, OK, f"{text}.")


def _examine_host() -> Iterator[Finding]:
    settings = get_settings()
    if settings.url is None or (settings.backend == "embedded" and settings.dispatch != "http"):
        # In process the system check W001 tells.
        return
    host = urlsplit(settings.url).hostname or ""
    allowed = django_settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if django_settings.DEBUG else [])
    if validate_host(host, allowed):
        yield Finding(FAMILY, OK, f"ALLOWED_HOSTS lets in the host of SOC_TASKS['URL'], {host}.")
    else:
        yield Finding(
            FAMILY,
            FAIL,
            f"ALLOWED_HOSTS refuses {host!r}, the host of SOC_TASKS['URL']: every task would get a 400.",
            f"Add {host!r} to ALLOWED_HOSTS.",
        )
