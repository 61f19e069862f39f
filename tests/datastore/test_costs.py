"""What an iteration costs, in entities read and written, as Google bills them."""

from __future__ import annotations

import pytest

from soc_tasks import DatastoreLogic, Iteration, iterative_task, startTask
from soc_tasks.state.datastore import get_client
from tests.datastore.entities import put
from tests.emulators import on_every_edition
from tests.views.calls import route

MANY, SIZE = 200, 20
BATCHES = MANY // SIZE


@pytest.fixture
def bill(client, monkeypatch):
    """Count what is read by key, found by queries, and written."""
    bill = {"read": 0, "found": 0, "written": 0}
    api = client._datastore_api

    def watch(method, count):
        call = getattr(api, method)

        def watched(*args, **kwargs):
            answer = call(*args, **kwargs)
            count(kwargs.get("request") or args[0], answer)
            return answer

        monkeypatch.setattr(api, method, watched)

    def looked_up(request, answer):
        # A key that is not there is billed, too.
        bill["read"] += len(request["keys"])

    def queried(request, answer):
        bill["found"] += len(answer.batch.entity_results)

    def committed(request, answer):
        bill["written"] += len(request["mutations"])

    watch("lookup", looked_up)
    watch("run_query", queried)
    watch("commit", committed)
    return bill


@on_every_edition
@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_costs_two_reads_and_a_write_beside_its_entities(client, bill, task_queues, atomic):
    put(client, "Counter", range(1, MANY + 1), hits=0)

    @iterative_task(DatastoreLogic("Counter"), batch_size=SIZE, atomic=atomic)
    def view(request, entities):
        if len(begun) == 1:
            begun.append(dict(bill))
        get_client().put_multi(entities)

    begun = []
    with route(view):
        handle = startTask(view)
        begun.append(dict(bill))
        task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done) == ("succeeded", MANY)
    # From the first batch on, whose own reads came before; the end of the shard and of the iteration are the rest.
    spent = {name: bill[name] - begun[1][name] for name in bill}
    again = MANY - SIZE if atomic else 0
    assert spent["read"] - again <= 2 * BATCHES + 8
    # One more than the batch tells where the next one begins.
    assert spent["found"] == MANY - SIZE + (BATCHES - 2)
    assert spent["written"] <= MANY + BATCHES + 4
