"""The bare site and a server that stands for Cloud Tasks, as processes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import urllib.request

from tests.engine.running import ROOT, until
from tests.servers import free_port

_READY = re.compile(r"TASKS_EMULATOR_HOST=(\S+) keys=(\S+)/certs")
PATIENCE = 60.0


class BareSite:
    """The running site.

    Args:
        client: a client of the emulator, in the namespace of the site.
        folder: where the server of the queues keeps its file.
        kills: how many of its processes are killed.
        seconds: how long one lives, about, while there are kills left.
        twice: part of the deliveries that come twice.
        seed: of the chances.
        relay: whether a relay runs beside it, as it has to where processes are killed.
        processes: how many there are.
        more: further variables of its environment.
    """

    def __init__(self, client, folder, *, kills=0, seconds=1.0, twice=0.0, seed=0, relay=False, processes=3, **more):
        self.client = client
        self.has_relay = relay
        self.kills = kills
        self._folder = folder
        self._chances = [str(processes), str(kills), str(seconds), str(seed)]
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.datastore.bare.settings",
            "BARE_NAMESPACE": client.namespace,
            "BARE_TWICE": str(twice),
            **more,
        }

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        server = self._start(
            "-m", "soc_tasks.engine.server", "--port", "0", "--database", str(self._folder / "queues.sqlite3"),
            "--location", "here", "--queue", "default", "--until-eof",
        )  # fmt: skip
        host, keys = _READY.search(server.stdout.readline()).groups()
        self.environment |= {"TASKS_EMULATOR_HOST": host, "BARE_KEYS": keys}
        # The site has to know its own address before it has it.
        self.environment["BARE_PORT"] = str(free_port())
        self.url = self.environment["BARE_URL"] = f"http://127.0.0.1:{self.environment['BARE_PORT']}"
        self.manage("queues", "--apply")
        self.site = self._start("-m", "tests.datastore.bare.serve", *self._chances)
        assert self.site.stdout.readline().strip() == self.environment["BARE_PORT"]
        if self.has_relay:
            self._start_relay()
            self._stack.callback(self._end_relay)
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(_end, process)
        return process

    def _start_relay(self):
        self.relay = subprocess.Popen(
            [sys.executable, "-m", "django", "tasks", "relay", "--every", "1"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _end_relay(self):
        self.relay.kill()
        self.relay.wait()

    def kill_relay(self):
        """Kill the relay (SIGKILL), and start it again."""
        assert self.relay.poll() is None, "the relay ended by itself"
        self._end_relay()
        self._start_relay()

    def manage(self, *arguments):
        """Run a verb of the command `tasks`, or `check`; return what it printed."""
        verb = arguments if arguments[0] == "check" else ("tasks", *arguments)
        done = subprocess.run(
            [sys.executable, "-m", "django", *verb],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path):
        """Return the answer of a view; asked again where its process was killed."""
        for _ in range(20):
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
                return answer.read().decode()
        raise AssertionError("the site does not answer")

    def wait_until_idle(self):
        """Wait until no task waits or runs."""
        import grpc
        from google.cloud import tasks_v2
        from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

        with grpc.insecure_channel(self.environment["TASKS_EMULATOR_HOST"]) as channel:
            client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
            waiter, left = threading.Event(), PATIENCE
            while list(client.list_tasks(parent="projects/demo/locations/here/queues/default")):
                assert left > 0, "there are still tasks"
                waiter.wait(0.1)
                left -= 0.1

    def until(self, condition, seconds=PATIENCE):
        """Wait until something is true."""
        until(condition, seconds)

    def fetch(self, kind):
        """Return the entities of a kind."""
        return list(self.client.query(kind=kind).fetch())


def _end(process):
    """End a process; `rest` is what it printed that nobody has read."""
    process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.rest = process.stdout.read()
    process.stdout.close()
