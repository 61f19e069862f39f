"""What was measured, in a JSON file: each part as it was measured last, with the machine, the command and the load."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contenders.rounds import Round
from benchmarks.processes import ROOT

#: Parts by their names.
Results = dict[str, dict[str, Any]]
_PIN = re.compile(r"^([\w.-]+)(?:\[.*\])?==(\S+)", re.MULTILINE)


def read(path: Path) -> Results:
    """Return what the file holds, or nothing where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: Results) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def describe_machine() -> dict[str, str]:
    """Return what the figures depend on, by its name."""
    import django

    from tests.servers import PostgresServer

    processor = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processors": f"{os.cpu_count()} x {processor[1] if processor else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Django": django.get_version(),
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": _ask(PostgresServer.find("initdb"), r"\) ([\d.]+)"),
        "Redis": _ask(shutil.which("redis-server"), r"v=([\d.]+)"),
        "peers": ", ".join(_read_pins()),
    }


def _ask(program: str | None, pattern: str) -> str:
    """Return the version that a program tells, or that it is missing."""
    if program is None:
        return "missing"
    told = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(pattern, told)
    return found[1] if found else told.strip()


def _read_pins() -> list[str]:
    """Return the peers that are installed, with their versions: the first ones of their requirements."""
    pins = []
    for path in sorted((ROOT / "benchmarks" / "contenders").glob("*.txt")):
        found = _PIN.findall(path.read_text())
        if (ROOT / f".venv-{path.stem}").exists():
            pins += [" ".join(pin) for pin in found if pin[0].startswith(path.stem) or "emulator" in pin[0]]
    return pins


def note(rounds: Sequence[Round], left_out: dict[str, str], options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the entry of a part."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "options": options,
        "left_out": left_out,
        "rounds": list(rounds),
        **more,
    }


def find_values(part: dict[str, Any], key: str, column: str) -> list[float]:
    """Return a figure of a contender, of each round that has it."""
    return [each[key][column] for each in part["rounds"] if column in each.get(key, {})]


def find_ratios(part: dict[str, Any], one: str, others: Sequence[str], column: str) -> list[float]:
    """Return, for each round, a figure of one contender by the highest of the same figure of others."""
    ratios = []
    for each in part["rounds"]:
        beside = [each[other][column] for other in others if column in each.get(other, {})]
        if beside and column in each.get(one, {}) and max(beside) > 0:
            ratios.append(each[one][column] / max(beside))
    return ratios


def show(values: Sequence[float], form: str, unit: str = "") -> str:
    """Return the median, and the spread where there are several rounds."""
    if not values:
        return ""
    text = form.format(statistics.median(values)) + unit
    return text if len(values) == 1 else f"{text} [{form.format(min(values))} - {form.format(max(values))}]"
