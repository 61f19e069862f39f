"""Google's emulators of Datastore: each on a free port of 127.0.0.1, with all it holds in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

from examples.cast import find_port

VARIABLE = "DATASTORE_EMULATOR_HOST"
PROJECT = "demo"
#: By the edition of Datastore that each of them emulates.
COMMANDS = {
    "datastore": ("beta", "emulators", "datastore", "start", "--no-store-on-disk", "--consistency=1.0"),
    "firestore": ("emulators", "firestore", "start", "--database-mode=datastore-mode"),
}
#: Seconds in which one must answer.
PATIENCE = 60.0


class EmulatorError(Exception):
    """An emulator did not start."""


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
        self.host = f"127.0.0.1:{find_port()}"
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
        """Return it once it answers.

        Raises:
            EmulatorError: it ended, or was silent for too long.
        """
        pause, left = threading.Event(), PATIENCE
        while not self.answers():
            if self.process.poll() is not None or left <= 0:
                log = (self.directory / "emulator.log").read_text(errors="replace")
                raise EmulatorError(f"the {self.name} emulator does not answer; its log:\n{log[-4000:]}")
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
