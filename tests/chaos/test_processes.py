"""Orphans, zombies, enqueuing processes that are killed, and deliveries that come at once."""

from __future__ import annotations

import pytest

from tests.databases import VENDORS

pytestmark = [pytest.mark.chaos, pytest.mark.requires("sigkill")]

on_every_database = pytest.mark.parametrize("chaos_site", VENDORS, indirect=True)
#: Seconds for the long forms.
LONG = 1200


#: The alias that the tasks belong to, and whether they are deferred calls; the short form has each once.
in_every_way = pytest.mark.parametrize(
    ("alias", "deferred"),
    [
        ("default", False),
        ("other", True),
        pytest.param("default", True, marks=pytest.mark.long),
        pytest.param("other", False, marks=pytest.mark.long),
    ],
)


def either(short, long):
    """Parametrize a test by the size of its short and its long form."""
    return pytest.mark.parametrize("size", [short, pytest.param(long, marks=pytest.mark.long)])


@on_every_database
@either(5, 100)
def test_orphans_of_this_machine_run_again(chaos_site, size, note_figure):
    chaos_site.environment["SOC_TASKS_CHAOS_LEASE"] = "2.5"
    found = chaos_site.ask("tests.chaos.orphans", kills=size, timeout=LONG)
    note_figure(f"orphans {chaos_site.vendor:10} same host", **found)
    assert found["wrong"] == []
    # The dead are seen at once, whatever the lease is.
    assert found["longest"] < found["lease"]


@on_every_database
@either(2, 100)
def test_orphans_of_another_machine_run_again_after_the_lease(chaos_site, size, note_figure):
    chaos_site.environment["SOC_TASKS_CHAOS_LEASE"] = "1"
    found = chaos_site.ask("tests.chaos.orphans", kills=size, elsewhere=True, timeout=LONG)
    note_figure(f"orphans {chaos_site.vendor:10} other host", **found)
    assert found["wrong"] == []
    assert found["longest"] <= found["lease"] + 2


@on_every_database
@pytest.mark.parametrize("view", ["step-atomic", "step-leased"])
@either(0, 12)
def test_what_a_zombie_did_does_not_count(chaos_site, view, size, note_figure):
    chaos_site.environment["SOC_TASKS_CHAOS_LEASE"] = "0.5"
    found = chaos_site.ask("tests.chaos.zombies", view=view, sample=size, seed=21, timeout=LONG)
    wrong = found.pop("wrong")
    note_figure(f"zombies {chaos_site.vendor:10} {view}", **found, wrong=len(wrong))
    assert wrong == []
    assert found["stops"] >= 1 + size / 2


@on_every_database
@in_every_way
@either(150, 10_000)
def test_tasks_exist_if_and_only_if_their_transaction_committed(chaos_site, alias, deferred, size, note_figure):
    found = chaos_site.ask("tests.chaos.enqueues", count=size, alias=alias, deferred=deferred, seed=31, timeout=LONG)
    note_figure(f"{'defers' if deferred else 'enqueues'} {chaos_site.vendor:10} {alias:7}", **found)
    assert (found["ghosts"], found["missing"], found["doubled"], found["left"]) == (0, 0, 0, 0)
    assert found["status"] == 0
    assert found["kills"] >= max(5, size / 60)
    assert found["tasks"] >= size / 2


@on_every_database
@in_every_way
@either(100, 10_000)
def test_so_do_tasks_of_a_service_that_loses_requests_and_replies(chaos_site, alias, deferred, size, note_figure):
    chaos_site.environment["SOC_TASKS_CHAOS_BACKEND"] = "cloud_tasks"
    found = chaos_site.ask(
        "tests.chaos.cloud_enqueues", count=size, alias=alias, deferred=deferred, seed=41, timeout=LONG
    )
    note_figure(f"cloud {'defers' if deferred else 'enqueues'} {chaos_site.vendor:10} {alias:7}", **found)
    assert (found["ghosts"], found["missing"], found["doubled"], found["left"]) == (0, 0, 0, 0)
    assert found["status"] == 0
    assert found["kills"] >= size / 60
    assert found["tasks"] >= size / 2


@on_every_database
@pytest.mark.parametrize("view", ["effect", "stumble", "step-atomic"])
def test_a_task_that_is_delivered_a_hundred_times_at_once_has_one_effect(chaos_site, view, note_figure):
    found = chaos_site.ask("tests.chaos.redeliveries", view=view)
    note_figure(f"redeliveries {chaos_site.vendor:10} {view:7}", **found)
    assert (found["effects"], found["receipts"], found["left"]) == (1, 1, 0)
    # Its first slice, where it is an iteration that started.
    assert found["tasks"] == (1 if view == "step-atomic" else 0)
    assert found["outcomes"]["done"] == 1
    # Only what raised was tried again.
    assert found["outcomes"].get("retry", 0) == (3 if view == "stumble" else 0)
