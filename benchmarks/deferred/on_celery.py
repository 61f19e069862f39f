"""Celery on Redis, as both are by default, without a result backend."""

from __future__ import annotations

import os
import shutil

from celery import Celery

from benchmarks.deferred.contender import (
    Figures,
    find_port,
    measure_deferring,
    measure_run,
    python,
    running,
    wait_for_port,
)
from benchmarks.deferred.work import noop

app = Celery("bench", broker=f"redis://127.0.0.1:{os.environ.get('SOC_TASKS_BENCH_REDIS', '0')}/0")
app.conf.task_ignore_result = True
call = app.task(noop)


def measure(count: int) -> Figures:
    """Return the rates, with a Redis of its own."""
    if shutil.which("redis-server") is None:
        raise SystemExit("there is no redis-server")
    port, folder = find_port(), os.environ["SOC_TASKS_BENCH_FOLDER"]
    os.environ["SOC_TASKS_BENCH_REDIS"] = str(port)
    app.conf.broker_url = f"redis://127.0.0.1:{port}/0"
    with running(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]):
        wait_for_port(port)
        figures = measure_deferring(count, call.delay)
        worker = python("-m", "celery", "-A", "benchmarks.deferred.on_celery", "worker", "-c", "2", "-l", "ERROR")
        return figures | measure_run(count, worker)
