"""The overview in Prometheus's text format; needs prometheus-client, which is loaded with this module alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from soc_tasks.logic.overview import CAP, Overview


def write_metrics(overview: Overview) -> tuple[bytes, str]:
    """Return the figures, and the content type that says which version of the format this is."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(overview))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Figures(Collector):
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def describe(self) -> list[Any]:
        """Name nothing beforehand: what is not known is left out."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield all figures that are known."""
        overview, queues = self._overview, self._overview.queues
        yield from _gauge(
            "tasks",
            f"Tasks by queue and state (due, scheduled, running); waiting ones are counted up to {CAP}.",
            ("queue", "state"),
            (
                ((queue.name, state), number)
                for queue in queues
                for state, number in (
                    ("due", queue.due),
                    ("scheduled", None if queue.waiting is None else queue.waiting - (queue.due or 0)),
                    ("running", queue.running),
                )
            ),
        )
        yield from _gauge(
            "queue_paused", "1 where the queue is paused.", ("queue",), (((q.name,), float(q.paused)) for q in queues)
        )
        known = overview.counts.waiting is not None
        yield from _gauge(
            "queue_oldest_due_seconds",
            "For how long the oldest due task of the queue has been due; 0 where none is.",
            ("queue",),
            (((queue.name,), (queue.oldest_age or 0.0) if known else None) for queue in queues),
        )
        yield from _gauge(
            "attempts_last_hour",
            "Attempts that ended in the last hour; dead: tasks that failed for good, part of failed.",
            ("queue", "outcome"),
            (((q.name, name), getattr(q, name)) for q in queues for name in ("succeeded", "failed", "dead")),
        )
        yield from _gauge(
            "attempts_per_second",
            "Attempts that ended of late, a second.",
            ("queue",),
            (((queue.name,), queue.rate) for queue in queues),
        )
        yield from _gauge(
            "failures_per_second",
            "Attempts that failed of late, a second.",
            ("queue",),
            (((queue.name,), queue.failure_rate) for queue in queues),
        )
        yield from _gauge(
            "attempt_seconds_mean",
            "How long an attempt took in the last hour, on average.",
            ("queue",),
            (((queue.name,), queue.mean_seconds) for queue in queues),
        )
        counts = overview.counts
        for name, number, text in (
            ("dead_letters", counts.dead_letters, f"Tasks that failed for good and are kept, counted up to {CAP}."),
            ("dead_letters_last_hour", counts.recent_dead_letters, f"Those of the last hour, counted up to {CAP}."),
            ("outbox_tasks", counts.outbox, f"Tasks that wait in outboxes, counted up to {CAP} in each."),
            ("workers", overview.workers, "Workers that were seen lately."),
        ):
            yield from _gauge(name, text, (), (((), number),))
        yield from self._collect_iterations()
        alerts = Counter((alert.kind, alert.level) for alert in overview.alerts)
        yield from _gauge("alerts", "What is wrong, by kind and level.", ("kind", "level"), alerts.items())

    def _collect_iterations(self) -> Iterator[Any]:
        found = self._overview.iterations
        statuses = Counter((iteration.name, iteration.status) for iteration in found)
        yield from _gauge(
            "iterations",
            "Iterations that run or are paused, by what they call: the newest twenty.",
            ("name", "status"),
            statuses.items(),
        )
        for name, text in (
            ("done", "Entities that these iterations have done."),
            ("failed", "Entities that these iterations have given up."),
            ("rate", "Entities a second that these iterations do of late."),
        ):
            sums: Counter[tuple[str, ...]] = Counter()
            for iteration in found:
                sums[(iteration.name,)] += getattr(iteration, name)
            yield from _gauge(f"iteration_entities_{name}", text, ("name",), sums.items())


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float | None]]
) -> Iterator[Any]:
    """Yield a family of what is known; none where nothing is."""
    family = GaugeMetricFamily(f"soc_tasks_{name}", text, labels=labels)
    for key, value in values:
        if value is not None:
            family.add_metric(key, value)
    if family.samples:
        yield family
