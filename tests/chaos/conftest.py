"""The site under chaos on each database, and the figures, which are printed at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import sqlite_options

ROOT = Path(__file__).resolve().parents[2]
#: The second one is for outboxes.
ALIASES = ("default", "other")


class ChaosSite:
    """A site whose processes may be killed.

    Attributes:
        vendor: "sqlite", "postgresql" or "mariadb".
        environment: of its processes.
    """

    def __init__(self, vendor, databases):
        self.vendor = vendor
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "SOC_TASKS_CHAOS_DATABASES": json.dumps(databases),
        }

    def command(self, module, *arguments):
        """Return the command line of a module."""
        return [sys.executable, "-m", module, *map(str, arguments)]

    def run(self, module, *arguments, timeout=120.0):
        """Run a module to its end, and return the last line that it printed."""
        done = subprocess.run(
            self.command(module, *arguments),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().rpartition("\n")[2]

    def ask(self, module, *arguments, timeout=120.0, **options):
        """Run a module that prints JSON, and takes it."""
        given = [json.dumps(options)] if options else []
        return json.loads(self.run(module, *arguments, *given, timeout=timeout))


@pytest.fixture(scope="session")
def chaos_databases(tmp_path_factory, database_servers):
    """Give a function that returns the DATABASES of a vendor, with all tables."""
    made = {}

    def get(vendor):
        if vendor not in made:
            if vendor == "sqlite":
                folder = tmp_path_factory.mktemp("chaos")
                databases = {alias: sqlite_options(folder / f"{alias}.sqlite3") for alias in ALIASES}
            else:
                server = database_servers(vendor)
                databases = {alias: server.options(server.create_database()) for alias in ALIASES}
            ChaosSite(vendor, databases).run("tests.chaos.tables")
            made[vendor] = databases
        return made[vendor]

    return get


@pytest.fixture
def chaos_site(request, tmp_path, chaos_databases):
    """Give the site on the vendor that is asked for."""
    vendor = request.param
    databases = chaos_databases(vendor)
    if vendor == "sqlite":
        databases = json.loads(json.dumps(databases))
        for entry in databases.values():
            entry["NAME"] = shutil.copy(entry["NAME"], tmp_path)
    return ChaosSite(vendor, databases)
