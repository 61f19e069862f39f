"""Dramatiq on Redis: two processes of eight threads."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.base import REDIS_PORT, Contender
from benchmarks.contenders.work import noop
from benchmarks.processes import python

dramatiq.set_broker(RedisBroker(host="127.0.0.1", port=REDIS_PORT))
actor = dramatiq.actor(noop)


class OnDramatiq(Contender):
    """Its command, with as many threads as it has by default."""

    def call(self, *arguments: int | str) -> None:
        actor.send(*arguments)

    def commands(self) -> list[list[str]]:
        return [python("-m", "dramatiq", "benchmarks.contenders.on_dramatiq", "-p", "2", "-t", "8")]


contender = OnDramatiq()
