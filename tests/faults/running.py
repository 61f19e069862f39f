"""A site in processes of its own, whose database has faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from django.db import connections

from soc_tasks import Iteration
from soc_tasks.engine.store import get_store
from tests.engine.running import until
from tests.specimen.models import Row, Tag

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process of the site whose lines are read all along."""

    def __init__(self, command, environment):
        self.popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines, self.errors = [], []
        self._readers = [
            threading.Thread(target=to.extend, args=(stream,), daemon=True)
            for stream, to in ((self.popen.stdout, self.lines), (self.popen.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self):
        return self.popen.pid

    def wait_until_ready(self):
        until(lambda: self.lines or self.popen.poll() is not None)
        assert self.lines, "".join(self.errors)

    def log(self, text):
        """Return the lines of the log that hold a text."""
        return [line for line in self.errors if text in line]

    def count(self, word):
        """Return how many lines it printed that begin with a word."""
        return sum(line.startswith(word) for line in self.lines)

    def stop(self, number, timeout=30):
        """Send a signal; return the exit status."""
        self.popen.send_signal(number)
        status = self.popen.wait(timeout)
        self.join()
        return status

    def join(self):
        """Read what is left."""
        for reader in self._readers:
            reader.join(30)

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(30)
        self.join()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            stream.close()


class Site:
    """A site whose database has faults.

    Attributes:
        alias: the database, in this process.
        server: what serves it; None on SQLite.
        file: where tasks note what they do.
    """

    def __init__(self, alias, server, folder):
        self.alias = alias
        self.server = server
        self.store = get_store(alias)
        self.file = str(folder / "notes")
        self.environment = {}
        self._started = []

    @property
    def database(self):
        """Return the entry of DATABASES."""
        given = connections.settings[self.alias]
        return {name: given[name] for name in ("ENGINE", "NAME", "HOST", "PORT", "USER", "PASSWORD", "OPTIONS")}

    def start(self, *arguments, ready=True, python=(), **environment):
        """Start a process of the site, and wait until it is ready."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
            "FAULTS_DATABASE": json.dumps(self.database),
            **self.environment,
            **environment,
        }
        process = Process([sys.executable, *python, "-m", *map(str, arguments)], environment)
        self._started.append(process)
        if ready:
            process.wait_until_ready()
        return process

    def work(self, *arguments, **more):
        """Start `tasks run`."""
        return self.start("django", "tasks", "run", *arguments, **more)

    def drain(self, *arguments, timeout=60, **more):
        """Work until nothing is left."""
        process = self.work("--until-empty", *arguments, ready=False, **more)
        assert process.popen.wait(timeout) == 0, "".join(process.errors)
        process.join()
        return process

    def notes(self, file=None):
        """Return what tasks noted: (what, name, process)."""
        try:
            with open(file or self.file) as lines:
                return [tuple(line.split()) for line in lines]
        except FileNotFoundError:
            return []

    def noted(self, what, file=None):
        """Return how often each name was noted."""
        return Counter(name for kind, name, _ in self.notes(file) if kind == what)

    def effects(self):
        """Return how often each effect is there."""
        return Counter(Tag.objects.using(self.alias).values_list("name", flat=True))

    def fill(self, rows):
        """Put rows there to iterate over."""
        Row.objects.using(self.alias).bulk_create([Row(pk=number + 1) for number in range(rows)], batch_size=500)

    def hits(self):
        """Return how often rows were counted: {hits: rows}."""
        return Counter(Row.objects.using(self.alias).values_list("hits", flat=True))

    def status(self, iteration):
        """Return how an iteration is; "" before it began."""
        try:
            return Iteration.get(iteration).status
        except Iteration.DoesNotExist:
            return ""

    def done(self, iteration):
        """Return how far an iteration is."""
        return Iteration.get(iteration).done if self.status(iteration) else 0

    def pids(self):
        """Return the processes that work."""
        return sorted(int(record.pid) for record in self.store.list_workers())

    def end(self):
        for process in self._started:
            process.close()
