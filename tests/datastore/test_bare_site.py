"""A site with `DATABASES = {}`, in processes of its own, beside a server that stands for Cloud Tasks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from soc_tasks.state import get_state
from soc_tasks.state.datastore_records import OUTBOX, PAYLOAD, RECEIPT
from tests.datastore.bare.running import BareSite
from tests.datastore.entities import count, put
from tests.emulators import on_every_edition

pytestmark = [on_every_edition, pytest.mark.requires("sigkill")]


@pytest.fixture
def site(state, client, tmp_path):
    with BareSite(client, tmp_path) as site:
        yield site


def test_all_works_without_a_database(site, client):
    assert "no issues" in site.manage("check")
    put(client, "City", range(1, 201), hits=0)
    iteration_id = site.get("/start-visit/")
    assert site.get("/start-some/") == "started"
    site.until(lambda: get_state().get_iteration(iteration_id) is not None)
    site.until(lambda: get_state().get_iteration(iteration_id).status == "succeeded")
    assert [entity["hits"] for entity in site.fetch("City")] == [1] * 200
    assert count(client, "Finalized") == 1
    site.until(lambda: count(client, "Remembered") == 3)
    assert sorted(entity["number"] for entity in site.fetch("Remembered")) == [1, 2, 3]
    site.until(lambda: len(get_state().list_dead_letters()) == 1)
    site.until(lambda: count(client, OUTBOX) == 0)
    assert f"{iteration_id}" in site.manage("iterations")
    site.manage("queues", "--check")
    told = json.loads(site.manage("watch", "--once", "--json"))
    assert (told["counts"]["dead_letters"], [each["id"] for each in told["iterations"]]) == (1, [iteration_id])
    assert " 0 failed," in site.manage("doctor")
    assert "FatalTaskError: refused" in site.manage("failed")
    assert "1 dead letters discarded" in site.manage("failed", "--discard")
    assert "no dead letters" in site.manage("failed")
    assert (count(client, RECEIPT), count(client, PAYLOAD)) == (2, 1)
    # A month later, what was kept is swept.
    for kind in (RECEIPT, PAYLOAD):
        for entity in site.fetch(kind):
            entity["expires"] = datetime.now(UTC) - timedelta(days=1)
            client.put(entity)
    assert site.manage("relay").startswith("0 tasks handed on")
    assert (count(client, RECEIPT), count(client, PAYLOAD)) == (0, 0)
