"""`{% load soc_tasks_console %}`: how the console writes counts, ages and moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

#: What stands where nothing can be told.
NOTHING = "\N{EN DASH}"


@register.filter
def capped(number: int | None, cap: int) -> str:
    """Write a count that stopped one above the cap: 10,000+."""
    if number is None:
        return NOTHING
    return f"{cap:,}+" if number > cap else f"{number:,}"


@register.filter
def grouped(number: int | float | None) -> str:
    """Write a number with its thousands apart."""
    return NOTHING if number is None else f"{number:,.0f}"


@register.filter
def span(seconds: float | timedelta | None) -> str:
    """Write a span in its largest unit."""
    if seconds is None:
        return NOTHING
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if left >= 1.5 * size:
            return f"{left / size:.0f} {unit}"
    return f"{max(0.0, left):.0f} s"


@register.filter
def age(moment: datetime | None) -> str:
    """Write how long ago a moment was."""
    return NOTHING if moment is None else span(datetime.now(UTC) - moment)


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """Write a moment: as short as it is clear, and in full for those who point at it."""
    if value is None:
        return NOTHING
    # Without USE_TZ there is no local time but that of the process.
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    far = abs(datetime.now(UTC) - value) > timedelta(hours=20)
    short = f"{local:%Y-%m-%d %H:%M}" if far else f"{local:%H:%M:%S}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', value.isoformat(), f"{local:%Y-%m-%d %H:%M:%S %Z}", short
    )


@register.filter
def clock(value: datetime) -> str:
    """Write the time of day."""
    return f"{timezone.localtime(value):%H:%M}"


@register.filter
def since(value: datetime | None) -> str:
    """Write when something is due, as seen from now."""
    if value is None:
        return NOTHING
    left = value - datetime.now(UTC)
    return f"in {span(left)}" if left > timedelta(seconds=1) else f"{span(-left)} ago"


@register.filter
def rate(number: float | None) -> str:
    """Write a rate a second."""
    if number is None:
        return NOTHING
    return f"{number:,.0f}/s" if number >= 10 else f"{number:,.2g}/s"
