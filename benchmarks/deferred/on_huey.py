"""Huey on SQLite at synchronous=NORMAL, which is faster than its default."""

from __future__ import annotations

from benchmarks.deferred.contender import Figures, measure_deferring, measure_run, python


def measure(count: int) -> Figures:
    """Return the rates."""
    from benchmarks.huey_peer import call

    figures = measure_deferring(count, call)
    consumer = ("-m", "huey.bin.huey_consumer", "benchmarks.huey_peer.huey")
    return figures | measure_run(count, python(*consumer, "-k", "process", "-w", "2", "-q", "-n"))
