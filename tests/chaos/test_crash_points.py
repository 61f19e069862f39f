"""Processes that die at a numbered point, then again at another: nothing is lost or doubled, ends twice, or hangs."""

from __future__ import annotations

import pytest

from tests.databases import VENDORS

pytestmark = [pytest.mark.chaos, pytest.mark.requires("sigkill")]

#: Seconds for all tries.
SHORT, LONG = 120, 1800


def check(note_figure, site, timeout, **options):
    site.environment["SOC_TASKS_CHAOS_LEASE"] = "0.1"
    found = site.ask("tests.chaos.crashes", timeout=timeout, **options)
    wrong = found.pop("wrong")
    kind = {1: "single", 2: "pairs"}[options.get("depth", 1)]
    what = "commits" if options.get("commits_only") else "statements"
    note_figure(f"crash points {site.vendor:10} {options['view']} {kind} {what}", **found, wrong=len(wrong))
    assert wrong == []
    # Where it waits for a lease it comes to fewer points, or to more.
    assert found["deaths"] >= found["tries"] / 2


on_every_database = pytest.mark.parametrize("chaos_site", VENDORS, indirect=True)


@on_every_database
def test_a_sample_of_points(chaos_site, note_figure):
    check(note_figure, chaos_site, SHORT, view="step-atomic", sample=10, seed=11)


@on_every_database
def test_a_sample_of_pairs_of_commits(chaos_site, note_figure):
    check(note_figure, chaos_site, SHORT, view="step-atomic", depth=2, sample=4, seed=12, commits_only=True)


@on_every_database
def test_a_sample_of_points_of_leased_batches(chaos_site, note_figure):
    check(note_figure, chaos_site, SHORT, view="step-leased", sample=3, seed=13)


@pytest.mark.parametrize("view", ["skip-atomic", "skip-leased"])
@on_every_database
def test_a_sample_of_points_where_an_item_is_given_up(chaos_site, note_figure, view):
    """It is in the ledger exactly if the cursor is behind it, and once."""
    check(note_figure, chaos_site, SHORT, view=view, sample=6, seed=15)


@pytest.mark.long
@pytest.mark.parametrize("view", ["skip-atomic", "skip-leased"])
@on_every_database
def test_all_points_where_an_item_is_given_up(chaos_site, note_figure, view):
    check(note_figure, chaos_site, LONG, view=view)


@pytest.mark.long
@on_every_database
def test_all_points(chaos_site, note_figure):
    check(note_figure, chaos_site, LONG, view="step-atomic")


@pytest.mark.long
@on_every_database
def test_many_points_of_leased_batches(chaos_site, note_figure):
    sample = None if chaos_site.vendor == "sqlite" else 60
    check(note_figure, chaos_site, LONG, view="step-leased", sample=sample, seed=14)


@pytest.mark.long
@pytest.mark.parametrize("chaos_site", ["sqlite"], indirect=True)
def test_all_pairs_of_commits(chaos_site, note_figure):
    check(note_figure, chaos_site, LONG, view="step-atomic", depth=2, commits_only=True)
