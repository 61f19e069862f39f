"""How long a task is an orphan whose process is killed: `python -m tests.chaos.orphans OPTIONS`; prints JSON.

Two workers, forked; one takes a task and never ends it, and is killed. The time until the other one has begun it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import django

PATIENCE = 60.0


class Notes:
    """What children write down, line by line."""

    def __init__(self):
        self._reader, self.writer = os.pipe()
        self._text = ""

    def read(self):
        """Return the next line as words."""
        while "\n" not in self._text:
            assert select.select([self._reader], [], [], PATIENCE)[0], "nobody took the task"
            self._text += os.read(self._reader, 65536).decode()
        line, _, self._text = self._text.partition("\n")
        return line.split()


def main(*, kills, elsewhere=False):
    """Kill so many workers.

    Args:
        kills: how many.
        elsewhere: whether they seem to be on other machines, where nobody can look whether they are gone.
    """
    from soc_tasks import RetryOptions, startTask
    from soc_tasks.conf import get_settings
    from soc_tasks.engine import caretaker
    from soc_tasks.engine.worker import Worker
    from tests.chaos import site, tables
    from tests.chaos.forks import Child, warm_up

    with tempfile.TemporaryDirectory() as folder:
        notes = Notes()
        site.notes, site.memory = notes.writer, Path(folder)
        tables.clear()

        def start(name):
            startTask("hold", {"name": name}, retry_options=RetryOptions(max_attempts=-1))

        def warm():
            (site.memory / "warm").touch()
            start("warm")
            Worker(threads=2).run_until_empty()
            notes.read()

        def work(tell):
            signal.alarm(0)
            if elsewhere:
                caretaker.this_host = lambda: f"host of {os.getpid()}"
            Worker(threads=2, ready=lambda: os.write(notes.writer, f"ready {os.getpid()}\n".encode())).run()

        def launch():
            child = Child(work)
            assert notes.read() == ["ready", str(child.pid)]
            return child

        warm_up(warm)
        children = {}
        waits, wrong = [], []
        try:
            for number in range(kills):
                while len(children) < 2:
                    child = launch()
                    children[child.pid] = child
                start(f"orphan-{number}")
                name, first = notes.read()
                killed = time.monotonic()
                os.kill(int(first), signal.SIGKILL)
                children.pop(int(first)).wait()
                again, second = notes.read()
                waits.append(time.monotonic() - killed)
                if again != name or second == first:
                    wrong.append(f"{name} of {first}: {again} of {second}")
        finally:
            for child in children.values():
                child.kill(signal.SIGKILL)
                child.wait()
        return {
            "kills": len(waits),
            "lease": get_settings().lease_seconds,
            "median": round(statistics.median(waits), 3),
            "longest": round(max(waits), 3),
            "wrong": wrong,
        }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(**json.loads(sys.argv[1]))))
