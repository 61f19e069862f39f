"""Google's emulators of Datastore, for tests: started at their first use, ended with the session.

`kinds` gives a client of one of them, in a namespace of the test's own; parametrize it indirectly with some of
`EDITIONS` (`on_every_edition`). What is in a namespace stays there: the emulators keep all in memory.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from examples.emulators import COMMANDS, PROJECT, VARIABLE, Emulator

EDITIONS = tuple(pytest.param(name, marks=pytest.mark.requires(name)) for name in COMMANDS)
on_every_edition = pytest.mark.parametrize("kinds", EDITIONS, indirect=True)

_numbers = itertools.count(1)


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
