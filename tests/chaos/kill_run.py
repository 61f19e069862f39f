"""An iteration whose workers are killed again and again: `python -m tests.chaos.kill_run OPTIONS`; prints JSON.

Two workers, forked from a warm process; each is killed by SIGKILL some time after it was ready, and replaced.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path

import django

WORKERS = 2
#: Seconds of processor time that it has at least, unless it does not use them for so long: a task whose process dies
#: three times before it has moved is a poison task, and on a busy machine each would be.
LEAST_WORK, LONGEST_WAIT = 0.1, 10.0
#: Seconds after which what is left is told.
PATIENCE = 60.0


def read_processor_time(pid):
    """Return the seconds of a process on a processor so far."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        # Not on Linux: no chance that can be told.
        return 0.0
    # Behind the name, which may hold anything: user time and system time are numbers 14 and 15 of all.
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(tell):
    """Be a worker, and tell when it is ready."""
    from soc_tasks.engine.worker import Worker

    signal.alarm(0)
    Worker(threads=2, ready=lambda: tell("ready")).run()


class Victim:
    """A place for a process; it is replaced when it was killed."""

    def __init__(self, seed, work, life, least_work):
        self._random = random.Random(seed)
        self._work = work
        self._life = life
        self._least_work = least_work
        self.kills = -1
        self.replace()

    def replace(self):
        from tests.chaos.forks import Child

        self.kills += 1
        self.kill_at = float("inf")
        self.child = Child(self._work)

    def note_ready(self):
        assert os.read(self.child.reader, 100), "a process ended by itself"
        now = time.monotonic()
        self.kill_at = now + self._random.uniform(*self._life)
        self._longest = now + LONGEST_WAIT
        self._worked = read_processor_time(self.child.pid)

    def is_due(self):
        """Tell whether it is to be killed now: it must have had a chance to work, however busy the machine is."""
        now = time.monotonic()
        if now < self.kill_at:
            return False
        if now < self._longest and read_processor_time(self.child.pid) - self._worked < self._least_work:
            self.kill_at = now + 0.05
            return False
        return True

    def kill(self):
        self.child.kill(signal.SIGKILL)
        self.child.wait()


def watch(iteration, seconds):
    """Wait until it has ended, without keeping the database busy."""
    from django.db import OperationalError

    from soc_tasks import Iteration

    signal.alarm(0)
    pause, end = threading.Event(), time.monotonic() + seconds
    while time.monotonic() < end:
        pause.wait(0.1)
        try:
            if Iteration.get(iteration).status != "running":
                return
        except (Iteration.DoesNotExist, OperationalError):
            continue


def kill_until_over(iteration, seed, seconds, *works, life, least_work=LEAST_WORK):
    """Kill processes that do `works` until the iteration has ended; return how many of each were."""
    from tests.chaos.forks import Child

    watcher = Child(lambda tell: watch(iteration, seconds))
    victims = [Victim(f"{seed}-{number}", each, life, least_work) for number, each in enumerate(works)]
    while True:
        waiting = {victim.child.reader: victim for victim in victims if victim.kill_at == float("inf")}
        timeout = max(0.0, min(victim.kill_at for victim in victims) - time.monotonic())
        ready, _, _ = select.select([watcher.reader, *waiting], [], [], min(timeout, PATIENCE))
        if watcher.reader in ready:
            break
        for reader in ready:
            waiting[reader].note_ready()
        for victim in victims:
            if victim.is_due():
                victim.kill()
                victim.replace()
    for victim in victims:
        victim.kill()
    watcher.wait()
    return [victim.kills for victim in victims]


def drain(tell):
    """Run what is left: what was doubled and delayed is still to come, and must do nothing."""
    from soc_tasks.engine.worker import Worker
    from tests.chaos import tables

    pause, end = threading.Event(), time.monotonic() + PATIENCE
    while True:
        Worker(threads=2).run_until_empty()
        report = tables.report()
        if not report["left"] or time.monotonic() > end:
            break
        pause.wait(0.1)
    tell(json.dumps(report))


def main(*, name, rows, seed, seconds, life):
    """Run an iteration of a view, over so many rows, for so many seconds at most.

    Args:
        life: seconds from ready to the kill of a worker, at least and at most.
    """
    from soc_tasks import RetryOptions, startTask
    from soc_tasks.engine.worker import Worker
    from tests.chaos import tables
    from tests.chaos.forks import Child, warm_up

    def warm():
        startTask(name)
        Worker(threads=2).run_until_empty()

    tables.clear()
    warm_up(warm)
    tables.clear(rows)
    iteration = startTask(name, retry_options=RetryOptions(max_attempts=-1)).iteration
    start = time.monotonic()
    kills = sum(kill_until_over(iteration, seed, seconds, *[work] * WORKERS, life=life))
    took = round(time.monotonic() - start, 1)
    return {"kills": kills, "seconds": took, **json.loads(Child(drain).wait().told)}


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
