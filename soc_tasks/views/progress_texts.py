"""Progress in words, in the active language: pages show them as they are, so that their script needs to know none."""

from __future__ import annotations

import math
from datetime import timedelta

from django.utils.formats import number_format
from django.utils.translation import gettext, ngettext

from soc_tasks.logic.progress import Progress


def write_texts(progress: Progress) -> dict[str, str]:
    """Return "state", which changes now and then, and "detail", which changes all the time."""
    return {"state": _write_state(progress), "detail": " · ".join(_write_details(progress))}


def _write_state(progress: Progress) -> str:
    if progress.status == "running":
        return gettext("Held back for now") if progress.hold else gettext("Running")
    return {
        "paused": gettext("Paused"),
        "cancelled": gettext("Cancelled"),
        "succeeded": gettext("Done"),
        "failed": gettext("Failed"),
    }.get(progress.status, gettext("Waiting to start"))


def _write_details(progress: Progress) -> list[str]:
    if progress.status == "waiting":
        return []
    done = _write_number(progress.done)
    if progress.total is None:
        parts = [gettext("%(done)s done") % {"done": done}]
    else:
        parts = [gettext("%(done)s of %(total)s") % {"done": done, "total": _write_number(progress.total)}]
    if progress.failed:
        parts.append(gettext("%(failed)s failed") % {"failed": _write_number(progress.failed)})
    if progress.status == "running":
        parts += [part for part in (_write_rate(progress.rate), _write_time_left(progress.time_left)) if part]
    return parts


def _write_number(number: float) -> str:
    return number_format(number, decimal_pos=0, force_grouping=True)


def _write_rate(rate: float) -> str:
    """Return a rate per second, or whatever makes a whole number of it; "" where it is nearly nothing."""
    if round(rate) >= 1:
        return gettext("%(number)s a second") % {"number": _write_number(round(rate))}
    if round(rate * 60) >= 1:
        return gettext("%(number)s a minute") % {"number": _write_number(round(rate * 60))}
    if round(rate * 3600) >= 1:
        return gettext("%(number)s an hour") % {"number": _write_number(round(rate * 3600))}
    return ""


def _write_time_left(left: timedelta | None) -> str:
    """Return a time in its largest unit, as exact as it can be told; "" where it cannot, or nothing is left."""
    if not left:
        return ""
    seconds = math.ceil(left.total_seconds())
    # Over 90 of a unit are told in the next one.
    if seconds <= 90:
        return ngettext("%(number)d second left", "%(number)d seconds left", seconds) % {"number": seconds}
    minutes = math.ceil(seconds / 60)
    if minutes <= 90:
        return ngettext("%(number)d minute left", "%(number)d minutes left", minutes) % {"number": minutes}
    hours = math.ceil(minutes / 60)
    if hours <= 48:
        return ngettext("%(number)d hour left", "%(number)d hours left", hours) % {"number": hours}
    days = math.ceil(hours / 24)
    return ngettext("%(number)d day left", "%(number)d days left", days) % {"number": days}
