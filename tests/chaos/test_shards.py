"""Iterations in eight shards, whose processes are killed again and again: nothing is lost or doubled, one end."""

from __future__ import annotations

import json

import pytest

from tests.databases import VENDORS

pytestmark = [pytest.mark.chaos, pytest.mark.requires("sigkill")]

#: Seconds after which an iteration is taken for lost, in the short form and in the long one.
SHORT, LONG = 150, 1200
#: What the embedded queue does, see transport.py; `tasks serve` has its site handle one of twenty requests twice.
FAULTS = {"doubled": 0.05, "delayed": 0.25, "longest": 0.5}
#: Rows of a batch: it must fit between two kills on a machine that has much to do, row by row where functions are
#: deferred; and there must be enough of them for some kills on one that has not.
BATCH = 20
#: Batches that may be under way in the processes that are killed at one time.
AT_ONE_TIME = 4


def check(note_figure, site, backend, name, atomic, rows, least, longest, seed):
    site.environment |= {
        "SOC_TASKS_CHAOS_SEED": str(seed),
        "SOC_TASKS_CHAOS_BATCH": str(BATCH),
        "SOC_TASKS_CHAOS_LEASE": "0.4",
        # A task of its own for each slice costs more beside `tasks serve`.
        "SOC_TASKS_CHAOS_SLICE": "0.5" if backend == "cloud_tasks" else "0.15",
    }
    if backend == "cloud_tasks":
        site.environment["SOC_TASKS_CHAOS_BACKEND"] = backend
    else:
        site.environment["SOC_TASKS_CHAOS_FAULTS"] = json.dumps(FAULTS)
    options = {"name": name, "atomic": atomic, "rows": rows, "seed": seed, "seconds": longest}
    cloud = backend == "cloud_tasks"
    found = site.ask("tests.chaos.shard_run", timeout=2 * longest + 120, cloud=cloud, **options)
    kills, seconds, doubled, ends, taken_over = (
        found.pop(key) for key in ("kills", "seconds", "doubled", "ends", "taken_over")
    )
    kind = "atomic" if atomic else "leased"
    note_figure(
        f"shards {site.vendor:10} {backend:11} {name:8} {kind}",
        rows=rows,
        batch=BATCH,
        kills=kills,
        taken_over=taken_over,
        lost=found["lost"],
        doubled=doubled,
        ends=ends,
        seconds=seconds,
    )
    assert found == {"status": "succeeded", "unfinished": 0, "done": rows, "lost": 0, "left": 0, "letters": []}
    assert doubled <= (0 if atomic else kills * AT_ONE_TIME * BATCH)
    # A function that is not atomic runs at least once; what a finalize that is a task does, once.
    assert ends == 1 if atomic or name == "view" else 1 <= ends <= 1 + kills
    assert kills >= least
    # Those of a deferred one begin with nearly all in one shard.
    assert taken_over or name == "view"


@pytest.mark.parametrize(
    ("chaos_site", "backend", "name", "atomic"),
    [
        ("sqlite", "embedded", "deferred", True),
        ("postgresql", "embedded", "view", False),
        ("mariadb", "embedded", "view", True),
        ("sqlite", "cloud_tasks", "deferred", True),
        ("postgresql", "cloud_tasks", "view", False),
    ],
    indirect=["chaos_site"],
)
def test_shards_lose_and_double_nothing(chaos_site, backend, name, atomic, note_figure):
    check(note_figure, chaos_site, backend, name, atomic, 20_000, least=3, longest=SHORT, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("chaos_site", VENDORS, indirect=True)
@pytest.mark.parametrize("backend", ["embedded", "cloud_tasks"])
@pytest.mark.parametrize("name", ["view", "deferred"])
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "leased"])
def test_shards_lose_and_double_nothing_of_many(chaos_site, backend, name, atomic, note_figure):
    check(note_figure, chaos_site, backend, name, atomic, 100_000, least=50, longest=LONG, seed=7)
