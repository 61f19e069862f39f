"""What an iteration costs, in entities read and written, as Google bills them.

The table in docs/howto/keep-the-state-in-datastore.md is these numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest

from soc_tasks import DatastoreLogic, Iteration, iterative_task, startTask
from soc_tasks.state import get_state
from tests.datastore.bare.running import BareSite
from tests.datastore.bill import Bill
from tests.datastore.entities import put
from tests.emulators import on_every_edition
from tests.views.calls import route

pytestmark = on_every_edition

SIZE = 10
#: Datastore's emulator counts by keys, and marks entities for ranges; Firestore's does neither.
OF_THE_EMULATOR = ("keys", "counts")


def subtract(more, less, times):
    """Return the difference of two bills for each of so many things; what is no whole number was no regular cost."""
    found = {}
    for part in sorted(more):
        difference = more[part] - less[part]
        if part not in OF_THE_EMULATOR and difference:
            assert difference % times == 0, (part, difference, times)
            found[part] = difference // times
    return found


@pytest.fixture
def run(client, task_queues):
    """Give a function that returns the bill of an iteration over a kind of its own."""

    def run(batches, ranges=None, **options):
        kind = f"Counter{batches}{options}"
        put(client, kind, range(1, batches * SIZE + 1), hits=0)

        class Logic(DatastoreLogic):
            def find_key_ranges(self, shard_count, **more):
                """Divide evenly, whatever the emulator marks."""
                share = batches * SIZE // shard_count
                bounds = [None, *(self.get_key_at(1 + share * n) for n in range(1, shard_count)), None]
                return list(pairwise(bounds))

        @iterative_task(Logic(kind), batch_size=SIZE, **options)
        def view(request, entities):
            pass

        bill = Bill(client)
        try:
            with route(view):
                handle = startTask(view)
                task_queues.process_task_queues()
        finally:
            bill.close()
        iteration = Iteration.get(handle.iteration)
        assert (iteration.status, iteration.done) == ("succeeded", batches * SIZE)
        return bill.take()

    return run


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_costs_two_reads_and_a_write_beside_its_entities(run, note_figure, atomic):
    each = subtract(run(20, atomic=atomic), run(10, atomic=atomic), 10)
    note_figure(f"a batch of {SIZE}, {atomic=}", **each)
    # One more than the batch tells where the next one begins; an atomic batch reads its entities again.
    assert each == {
        "read": (SIZE if atomic else 0) + 2,
        "found": SIZE + 1,
        "queries": 1,
        "written": 1,
        "begins": 1,
        "commits": 1,
    }


def test_a_shard_costs_two_writes_beside_its_task(run, note_figure):
    each = subtract(run(12, atomic=True, shards=4), run(12, atomic=True, shards=2), 2)
    note_figure("a shard", **each)
    # The last batch of a shard has nothing behind it.
    assert each == {"read": 1, "found": -1, "written": 2}


def take(site):
    """Return the bill of a site's process, once nothing is under way there."""
    site.wait_until_idle()
    return Counter(json.loads(site.get("/bill/")))


@pytest.fixture
def metered(client, tmp_path):
    """Give a function that opens a site of one process, whose slices have so many seconds."""

    def open_site(seconds):
        folder = tmp_path / f"{seconds}"
        folder.mkdir()
        return BareSite(
            client,
            folder,
            processes=1,
            BARE_SLICE_SECONDS=f"{seconds}",
            BARE_CLIENT="tests.datastore.bare.counted.make_client",
        )

    return open_site


@pytest.mark.requires("sigkill")
def test_a_slice_and_a_task_cost_an_entity_of_the_outbox(client, metered, note_figure):
    put(client, "Counter", range(1, 10 * SIZE + 1), hits=0)
    bills = {}
    for seconds, slices in ((1000, 1), (0.000001, 10)):
        with metered(seconds) as site:
            for name in ("look", "look_leased"):
                # Before what is counted, the process has had its client.
                site.get("/start-one/do_nothing/")
                take(site)
                iteration_id = site.get(f"/start-one/{name}/")
                bills[name, slices] = take(site)
                assert get_state().get_iteration(iteration_id).status == "succeeded"
                [shard] = get_state().list_shards(iteration_id)
                assert shard.step == slices - 1
            if slices == 1:
                for kind in ("", "?transaction"):
                    site.get(f"/start-one/do_nothing/{kind}")
                    bills[f"task{kind}"] = take(site)
    task = subtract(bills["task"], Counter(), 1)
    held = subtract(bills["task?transaction"], bills["task"], 1)
    atomic = subtract(bills["look", 10], bills["look", 1], 9)
    leased = subtract(bills["look_leased", 10], bills["look_leased", 1], 9)
    whole = {part: number for part, number in bills["look", 1].items() if part not in OF_THE_EMULATOR and number}
    for name, bill in {
        "an atomic task": task,
        "that it is of a transaction": held,
        "a slice, atomic=True": atomic,
        "a slice, atomic=False": leased,
        "an iteration of 10 atomic batches": whole,
    }.items():
        note_figure(name, **bill)
    assert task == {"read": 1, "written": 1, "begins": 1, "commits": 1}
    assert held == {"read": 1, "written": 1, "deleted": 1, "begins": 1, "commits": 2}
    assert atomic == {"read": 1, "written": 1, "deleted": 1, "commits": 1}
    assert leased == {"read": 3, "written": 2, "deleted": 1, "begins": 1, "commits": 2}
    # Beside its batches: the iteration, its shard, and a look at the first entity.
    assert (whole["read"], whole["found"], whole["written"], whole["deleted"]) == (
        10 * (SIZE + 2) + 3,
        10 * (SIZE + 1) + 1,
        10 + 4,
        1,
    )
