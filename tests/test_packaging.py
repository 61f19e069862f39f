"""The wheel holds soc_tasks and nothing else of the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.requires("setuptools")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the tree, so that no build directory appears in it, and without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "*.sqlite3*")
    shutil.copytree(ROOT, source, ignore=skipped, dirs_exist_ok=True)
    command = f"from setuptools import build_meta; print(build_meta.build_wheel({str(target)!r}))"
    # PEP 517 front ends run the back end in the source's root, too.
    run = subprocess.run([sys.executable, "-c", command], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(target / run.stdout.splitlines()[-1]) as archive:
        yield archive


def _read_metadata(wheel, name):
    (path,) = [entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_only_soc_tasks_ships(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"soc_tasks"}
    assert len(tops) == 2


def test_every_module_template_and_static_file_ships(wheel):
    package = ROOT / "soc_tasks"
    wanted = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        if path.suffix == ".py" or path.name == "py.typed" or {"templates", "static"} & set(path.parts)
    }
    assert wanted <= set(wheel.namelist())
    assert "soc_tasks/py.typed" in wanted


def test_metadata(wheel):
    metadata = Parser().parsestr(_read_metadata(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("soc-tasks", "0.1.0")
    assert metadata["License-Expression"] == "Apache-2.0"
    core = {line.split(">")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert {name.split("<")[0] for name in core} == {
        "Django",
        "google-cloud-datastore",
        "google-cloud-tasks",
        "simplejson",
    }
    assert {"cli", "demo", "test", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_pytest_finds_the_plugin(wheel):
    entry_points = ConfigParser()
    entry_points.read_string(_read_metadata(wheel, "entry_points.txt"))
    assert dict(entry_points["pytest11"]) == {"soc_tasks": "soc_tasks.pytest_plugin"}
