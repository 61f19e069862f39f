"""Kills and duplicates, with the state in Datastore: nothing lost, nothing doubled, one finalize."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from soc_tasks.state import get_state
from soc_tasks.state.datastore_records import OUTBOX
from tests.datastore.bare.running import BareSite
from tests.datastore.entities import count, put
from tests.emulators import on_every_edition
from tests.engine.running import ROOT

pytestmark = [on_every_edition, pytest.mark.chaos, pytest.mark.requires("sigkill")]

#: Seconds for an iteration, at most. Where readers hold locks, those of a process that was killed end after a minute.
LONG = 3000


@pytest.mark.parametrize(
    ("cities", "kills", "seconds"), [(400, 4, 0.6), pytest.param(10_000, 30, 2.0, marks=pytest.mark.long)]
)
def test_an_iteration_survives_kills_and_duplicates(client, tmp_path, cities, kills, seconds, note_figure):
    put(client, "City", range(1, cities + 1), hits=0)
    begun, waiter, relays = time.monotonic(), threading.Event(), 0
    with BareSite(client, tmp_path, kills=kills, seconds=seconds, twice=0.05, seed=7, relay=True) as site:
        iteration_id = site.get("/start-visit/")
        while (record := get_state().get_iteration(iteration_id)) is None or record.status == "running":
            assert time.monotonic() < begun + LONG, "it did not end in time"
            waiter.wait(0.1)
            if relays < kills // 3 and time.monotonic() > begun + 8 * (relays + 1):
                site.kill_relay()
                relays += 1
        # What follows is queued by the last step, and its process may be killed as well.
        site.until(lambda: count(client, "Finalized"), 120)
        took = time.monotonic() - begun
    hits = [entity["hits"] for entity in site.fetch("City")]
    note_figure(
        f"iteration on {client.edition}",
        cities=cities,
        kills=site.site.rest.count("killed"),
        relays=relays,
        seconds=round(took),
        lost=hits.count(0),
        doubled=sum(each > 1 for each in hits),
        finalized=count(client, "Finalized"),
    )
    assert site.site.rest.count("killed") > 0
    assert record.status == "succeeded"
    assert (len(hits), set(hits)) == (cities, {1})
    assert count(client, "Finalized") == 1


@pytest.mark.parametrize(("transactions", "relays"), [(25, 1), pytest.param(1000, 20, marks=pytest.mark.long)])
def test_tasks_are_there_if_and_only_if_their_transaction_is(client, transactions, relays, note_figure):
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.datastore.bare.settings",
        "BARE_NAMESPACE": client.namespace,
        "BARE_TARGET": "app_engine",
    }
    options = json.dumps({"count": transactions, "seed": 3, "relays": relays})
    done = subprocess.run(
        [sys.executable, "-m", "tests.datastore.enqueues", options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    note_figure(f"enqueues on {client.edition}", **found)
    assert found["kills"] > 0
    assert 0 < found["tasks"] < transactions
    assert (found["ghosts"], found["missing"], found["doubled"], found["status"]) == (0, 0, 0, 0)
    assert count(client, OUTBOX) == 0
