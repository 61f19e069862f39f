"""Google's emulators of Datastore, for tests: each on a free port of 127.0.0.1, ended with the session.

`kinds` gives a client of one of them, in a namespace of the test's own; parametrize it indirectly with some of
`EDITIONS` (`on_every_edition`). What is in a namespace stays there: the emulators keep all in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.servers import PATIENCE, free_port

VARIABLE = "DATASTORE_EMULATOR_HOST"
PROJECT = "demo"
#: By the edition of Datastore that each of them emulates.
COMMANDS = {
    "datastore": ("beta", "emulators", "datastore", "start", "--no-store-on-disk", "--consistency=1.0"),
    "firestore": ("emulators", "firestore", "start", "--database-mode=datastore-mode"),
}
EDITIONS = tuple(pytest.param(name, marks=pytest.mark.requires(name)) for name in COMMANDS)
on_every_edition = pytest.mark.parametrize("kinds", EDITIONS, indirect=True)

_numbers = itertools.count(1)


class Emulator:
    """One of gcloud's emulators: a process group of gcloud, a shell and Java."""

    @staticmethod
    def missing(name: str) -> str | None:
        """Return what is missing and how to get it, or None."""
        package = f"google-cloud-cli-{name}-emulator"
        found = shutil.which("gcloud")
        if found is None:
            return f"gcloud; install it with Google's packages: apt-get install google-cloud-cli {package}"
        # The folder of gcloud itself is <root>/bin.
        if not Path(found).resolve().parent.parent.joinpath("platform", f"cloud-{name}-emulator").is_dir():
            return f"gcloud's {name} emulator; install it with: apt-get install {package}"
        if shutil.which("java") is None:
            return "Java, which Google's emulators run on; install it with: apt-get install default-jre-headless"
        return None

    def __init__(self, name: str) -> None:
        self.name = name
        self.host = f"127.0.0.1:{free_port()}"
        self.directory = Path(tempfile.mkdtemp(prefix="soc-"))
        # What gcloud writes down goes there, and Java starts as fast as it can.
        environment = {
            **os.environ,
            "CLOUDSDK_CONFIG": str(self.directory),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx1g",
        }
        command = ["gcloud", *COMMANDS[name], f"--project={PROJECT}", f"--host-port={self.host}"]
        with (self.directory / "emulator.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )

    def wait(self) -> Emulator:
        """Return it once it answers."""
        pause, left = threading.Event(), PATIENCE
        while not self.answers():
            assert self.process.poll() is None, (self.directory / "emulator.log").read_text()
            assert left > 0, f"the {self.name} emulator does not answer"
            pause.wait(0.05)
            left -= 0.05
        return self

    def answers(self) -> bool:
        """Tell whether it serves."""
        try:
            with urllib.request.urlopen(f"http://{self.host}/", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def end(self) -> None:
        """End its processes, and forget what it held."""
        # Nothing is kept, so nothing needs a farewell; Java may outlive gcloud, but not its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def emulators():
    """Give a function that returns the running emulator of an edition, started at its first call."""
    running: dict[str, Emulator] = {}

    def get(name):
        if not running:
            # Side by side: whoever tests on one edition mostly tests on the other as well.
            running.update({name: Emulator(name) for name in COMMANDS if Emulator.missing(name) is None})
        return running[name].wait()

    yield get
    for emulator in running.values():
        emulator.end()


@pytest.fixture
def kinds(request, emulators, monkeypatch):
    """Give a client of the emulator that is asked for, in an empty namespace; this process's own reaches it, too."""
    from google.cloud import datastore

    monkeypatch.setenv(VARIABLE, emulators(request.param).host)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    client = datastore.Client(project=PROJECT, namespace=f"test-{next(_numbers)}")
    client.edition = request.param
    yield client
    client.close()


def main(arguments: list[str]) -> int:
    """Run a command beside an emulator: `python -m tests.emulators firestore pytest …`."""
    name, *command = arguments
    if missing := Emulator.missing(name):
        print(f"missing: {missing}", file=sys.stderr)
        return 1
    emulator = Emulator(name)
    try:
        emulator.wait()
        environment = {**os.environ, VARIABLE: emulator.host, "GOOGLE_CLOUD_PROJECT": PROJECT}
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        emulator.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
