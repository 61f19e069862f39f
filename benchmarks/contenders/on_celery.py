"""Celery on Redis, two processes, without a result backend: acknowledging early, as by default, or late."""

from __future__ import annotations

from celery import Celery

from benchmarks.contenders.base import REDIS_PORT, VARIANT, Contender
from benchmarks.contenders.work import noop
from benchmarks.processes import python

app = Celery("bench", broker=f"redis://127.0.0.1:{REDIS_PORT}/0")
app.conf.task_ignore_result = True
app.conf.task_acks_late = VARIANT == "late"
task = app.task(noop)


class OnCelery(Contender):
    """What several machines tell each other is switched off: it is one machine."""

    def call(self, *arguments: int | str) -> None:
        task.delay(*arguments)

    def commands(self) -> list[list[str]]:
        alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        module = "benchmarks.contenders.on_celery"
        return [python("-m", "celery", "-A", module, "worker", "-P", "prefork", "-c", "2", "-l", "ERROR", *alone)]


contender = OnCelery()
