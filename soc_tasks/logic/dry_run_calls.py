"""A dry run for a page: in a process of its own, since it takes the place of the site's backend and mail."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from soc_tasks.logic import payloads

#: How much is tried, and how long the page waits for it.
ROWS: Final = 100
SECONDS: Final = 5.0
PATIENCE: Final = 25.0
#: Characters of its report that are shown.
LONGEST: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunText:
    """What a dry run printed.

    Args:
        command: how to run it in a terminal.
        text: its report, or what went wrong.
        is_good: whether it ended without a failure.
    """

    command: str
    text: str
    is_good: bool


def try_dry(path: str, context: Mapping[str, Any], queue: str) -> DryRunText:
    """Try the first rows of an iteration, in transactions that roll back.

    Args:
        path: of the task that would start it.
        context, queue: as it would be started.
    """
    arguments = ["tasks", "iterations", "--dry-run", path, "--queue", queue, "--limit", f"{ROWS}"]
    arguments += ["--seconds", f"{SECONDS:g}", "--context", payloads.dumps(dict(context), "context")]
    command = f"manage.py {shlex.join(arguments)}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "django", *arguments, "--yes", "--no-color"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return DryRunText(command=command, text=f"It took more than {PATIENCE:g} seconds.", is_good=False)
    except OSError as error:
        return DryRunText(command=command, text=f"No process could be started here: {error}", is_good=False)
    text = done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr[-2000:]}"
    return DryRunText(command=command, text=text.strip()[:LONGEST], is_good=done.returncode == 0)
