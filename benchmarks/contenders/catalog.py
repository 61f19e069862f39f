"""Who is measured, in which environment, on what, and what it promises there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.databases import Postgres
from benchmarks.processes import ROOT, find_missing_redis

#: How durable what was committed is, by where it is.
DURABILITY = {
    "sqlite-normal": "SQLite, WAL, synchronous=NORMAL: survives a kill; loses the last commits with the power",
    "sqlite-full": "SQLite, WAL, synchronous=FULL: each commit is on the disk",
    "postgresql": "PostgreSQL by default (fsync on): each commit is on the disk",
    "redis": "Redis, appendfsync everysec: loses the last second with the power",
    "memory": "none: all is lost with the emulator's process",
}
#: The same in a few words: what it survives.
SURVIVES = {
    "sqlite-normal": "a kill",
    "sqlite-full": "loss of power",
    "postgresql": "loss of power",
    "redis": "loss of power, but for 1 s",
    "memory": "nothing",
}


class Entry(NamedTuple):
    """A contender.

    `beside` names ours that it is compared with, `share` is the part of the tasks that a slow one gets, and `settings`
    are more variables of the environment. Peers have a virtual environment of their own, ours none.
    """

    key: str
    title: str
    module: str
    on: str
    promise: str
    variant: str = ""
    environment: str = ""
    beside: str = ""
    share: float = 1.0
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return ROOT / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def ours(self) -> bool:
        """Tell whether it is soc_tasks."""
        return self.module == "on_soc_tasks"

    def find_missing(self) -> str | None:
        """Return why it cannot be measured here, and what to do."""
        if not self.python.exists():
            return f"not installed: there is no {self.environment}; run `make bench-peers`"
        if self.on == "redis":
            return find_missing_redis()
        return Postgres.find_missing() if self.on == "postgresql" else None


AT_LEAST_ONCE = "at least once; part of the caller's transaction"
HUEY = "at most once: taken away before it runs, and lost with its process; no retry unless asked for"
CELERY = "acknowledged before it runs: lost with its process"
DJANGO_Q = "at least once. At its best settings: 50 at a time, no results kept, connections kept"
DJANGO_TASKS = "no retries; what ran in a process that dies stays as running. Keeps every result; connections kept"
EMULATOR = "in memory; one task at a time for each queue"
STARTPROJECT = (("SOC_TASKS_BENCH_SITE", "startproject"),)

CATALOG = (
    Entry("ours", "soc_tasks, SQLite NORMAL", "on_soc_tasks", "sqlite-normal", AT_LEAST_ONCE),
    Entry(
        "ours-middleware",
        "soc_tasks, SQLite NORMAL, startproject's middleware",
        "on_soc_tasks",
        "sqlite-normal",
        AT_LEAST_ONCE,
        settings=STARTPROJECT,
    ),
    Entry("ours-full", "soc_tasks, SQLite FULL", "on_soc_tasks", "sqlite-full", AT_LEAST_ONCE),
    Entry("ours-postgresql", "soc_tasks, PostgreSQL", "on_soc_tasks", "postgresql", AT_LEAST_ONCE),
    Entry(
        "ours-window-10",
        "soc_tasks, SQLite NORMAL, --window 10",
        "on_soc_tasks",
        "sqlite-normal",
        f"{AT_LEAST_ONCE}; what a killed process held runs again, 10 tasks at most",
        "10",
    ),
    Entry(
        "ours-window-1",
        "soc_tasks, SQLite NORMAL, --window 1",
        "on_soc_tasks",
        "sqlite-normal",
        f"{AT_LEAST_ONCE}; each answered for before the next one is taken: a kill repeats one for each process",
        "1",
        share=0.25,
    ),
    Entry("raw", "sqlite3 itself, NORMAL", "on_raw", "sqlite-normal", "rows only", "NORMAL", beside="ours"),
    Entry("raw-full", "sqlite3 itself, FULL", "on_raw", "sqlite-full", "rows only", "FULL", beside="ours-full"),
    Entry("huey", "Huey, SQLite NORMAL", "on_huey", "sqlite-normal", HUEY, "normal", ".venv-huey", "ours"),
    Entry("huey-full", "Huey, SQLite FULL", "on_huey", "sqlite-full", HUEY, "full", ".venv-huey", "ours-full"),
    Entry("huey-redis", "Huey, Redis", "on_huey", "redis", HUEY, "redis", ".venv-huey", "ours"),
    Entry("dramatiq", "Dramatiq, Redis", "on_dramatiq", "redis", "at least once", "", ".venv-dramatiq", "ours"),
    Entry("celery", "Celery, Redis", "on_celery", "redis", CELERY, "", ".venv-celery", "ours", 0.25),
    Entry(
        "celery-late",
        "Celery, Redis, acks_late",
        "on_celery",
        "redis",
        "at least once",
        "late",
        ".venv-celery",
        "ours",
        0.25,
    ),
    Entry(
        "django-q",
        "django-q2, SQLite NORMAL",
        "on_django_q",
        "sqlite-normal",
        DJANGO_Q,
        "",
        ".venv-django-q",
        "ours",
        0.5,
    ),
    Entry(
        "django-q-postgresql",
        "django-q2, PostgreSQL",
        "on_django_q",
        "postgresql",
        DJANGO_Q,
        "",
        ".venv-django-q",
        "ours-postgresql",
        0.25,
    ),
    Entry(
        "django-tasks",
        "django-tasks-db, SQLite NORMAL",
        "on_django_tasks",
        "sqlite-normal",
        DJANGO_TASKS,
        "",
        ".venv-django-tasks",
        "ours",
        0.2,
    ),
    Entry(
        "django-tasks-postgresql",
        "django-tasks-db, PostgreSQL",
        "on_django_tasks",
        "postgresql",
        DJANGO_TASKS,
        "",
        ".venv-django-tasks",
        "ours-postgresql",
        0.2,
    ),
    Entry(
        "procrastinate",
        "Procrastinate, PostgreSQL",
        "on_procrastinate",
        "postgresql",
        "no second try of what ran in a process that dies, unless asked for",
        "",
        ".venv-procrastinate",
        "ours-postgresql",
        0.2,
    ),
    Entry(
        "emulator",
        "gcloud-tasks-emulator, gunicorn",
        "on_emulator",
        "memory",
        EMULATOR,
        "",
        ".venv-emulator",
        "ours",
        0.25,
    ),
    Entry(
        "emulator-middleware",
        "gcloud-tasks-emulator, gunicorn, startproject's middleware",
        "on_emulator",
        "memory",
        EMULATOR,
        "",
        ".venv-emulator",
        "ours-middleware",
        0.25,
        STARTPROJECT,
    ),
)
BY_KEY = {entry.key: entry for entry in CATALOG}
