"""Queues: what waits in them, and pause, resume, purge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern

from soc_tasks.backends.inspection import Inspector, QueueStanding
from soc_tasks.engine.clock import from_micros
from soc_tasks.errors import SocTasksError
from soc_tasks.views.console.actions import perform
from soc_tasks.views.console.pages import open_inspector

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

#: What is done to a queue, and what is said afterwards.
STEERING = {
    "pause": "The queue {} is paused; what runs already goes on.",
    "resume": "The queue {} runs.",
}


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [
        console.page("queues/", show_queues, "queues"),
        console.action("queues/<str:queue>/steer/", steer, "queue_steer"),
        console.form("queues/<str:queue>/purge/", purge, "queue_purge"),
    ]


def show_queues(console: Console, request: HttpRequest) -> HttpResponse:
    """Show all queues."""
    inspector, problem = open_inspector()
    standings: list[QueueStanding] = []
    past: dict[str, Past] = {}
    if inspector is not None:
        try:
            standings = inspector.list_queues()
            past = read_past(inspector)
        except SocTasksError as error:
            problem = str(error)
    values = {
        "queues": standings,
        "rows": [(standing, past.get(standing.name)) for standing in standings],
        "has_past": bool(past),
        "problem": problem,
        "note": "" if inspector is None else inspector.note,
        "cap": Inspector.cap if inspector is None else inspector.cap,
        "counts": inspector is not None and inspector.lists_all_queues,
        "drifting": any(standing.drift for standing in standings),
    }
    poll = 3 if inspector is None else inspector.poll_seconds
    return console.render(request, "queues", "Queues", values, tab="queues", live=True, poll=poll)


@dataclass(slots=True, kw_only=True)
class Past:
    """What came of a queue's attempts.

    Args:
        rate: attempts a second that ended of late.
        succeeded, failed: attempts of the last hour.
    """

    rate: float = 0.0
    succeeded: int = 0
    failed: int = 0


def read_past(inspector: Inspector) -> dict[str, Past]:
    """Return what came of attempts by queue; empty where nobody counts."""
    now = inspector.backend.now()
    minutes = inspector.backend.list_minutes(now - timedelta(minutes=59))
    past: dict[str, Past] = {}
    # Of the minute that is under way, and the one before.
    begin = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    for minute in minutes or ():
        one = past.setdefault(minute.queue, Past())
        one.succeeded += minute.succeeded
        one.failed += minute.failed
        if from_micros(minute.minute) >= begin:
            one.rate += (minute.succeeded + minute.failed) / (now - begin).total_seconds()
    return past


def steer(console: Console, request: HttpRequest, queue: str) -> HttpResponse:
    """Pause or resume a queue."""
    verb = request.POST.get("verb", "")
    if verb not in STEERING:
        raise Http404
    inspector = _need_inspector()
    _find(inspector, queue)

    def work() -> str:
        (inspector.backend.pause if verb == "pause" else inspector.backend.resume)(queue)
        return STEERING[verb].format(queue)

    perform(request, f"{verb} queue", queue, work, together=inspector.is_transactional)
    return console.go_back(request, "queues")


def purge(console: Console, request: HttpRequest, queue: str) -> HttpResponse:
    """Ask, and delete the tasks that are in a queue now."""
    inspector = _need_inspector()
    standing = _find(inspector, queue)
    if request.method == "POST":

        def work() -> str:
            number = inspector.backend.purge(queue)
            if number is None:
                return f"The queue {queue} is being purged; Cloud Tasks takes up to a minute for it."
            return f"{number:,} tasks were deleted from queue {queue}."

        perform(request, "purge queue", queue, work, together=False)
        return console.go_back(request, "queues")
    numbers = (standing.due, standing.scheduled, standing.running)
    known = [number for number in numbers if number is not None]
    values = {
        "queue": standing,
        "number": min(sum(known), inspector.cap) if known else None,
        "is_more": any(number > inspector.cap for number in known) or sum(known) > inspector.cap,
        "cancel": console.url("queues"),
    }
    return console.render(request, "purge", f"Purge {queue}?", values, tab="queues")


def _need_inspector() -> Inspector:
    inspector, problem = open_inspector()
    if inspector is None:
        raise Http404(problem)
    return inspector


def _find(inspector: Inspector, queue: str) -> QueueStanding:
    """Return a queue, or raise Http404 where there is none."""
    for standing in inspector.list_queues():
        if standing.name == queue:
            return standing
    raise Http404(f"There is no queue {queue!r}.")
