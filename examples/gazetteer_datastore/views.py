"""The totals of the latest count, and the button that counts anew."""

from datetime import UTC, datetime
from uuid import uuid4

from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from examples.gazetteer_datastore.kinds import read_totals
from soc_tasks import startTask
from soc_tasks.state.datastore import get_client


@require_GET
def gazetteer(request):
    """Show what the latest count has added up."""
    client = get_client()
    query = client.query(kind="Count", order=["-started"])
    return _show(request, next(iter(query.fetch(limit=1)), None))


@require_POST
def count_starter(request):
    """Note a new count and start its task: both or, if anything fails, neither."""
    from google.cloud.datastore import Entity

    client = get_client()
    with client.transaction():
        count = Entity(client.key("Count", uuid4().hex))
        handle = startTask("add_population", {"count_id": count.key.name}, using=client)
        count.update(started=datetime.now(UTC), iteration=handle.iteration, finished=0)
        client.put(count)
    return _show(request, count)


def _show(request, count):
    totals = {} if count is None else read_totals(get_client(), count.key.name)
    page = {
        "count": count,
        "count_id": None if count is None else count.key.name,
        "rows": sorted(totals.items(), key=lambda row: row[1][1], reverse=True),
        "cities": sum(cities for cities, _ in totals.values()),
        "population": sum(population for _, population in totals.values()),
    }
    return render(request, "gazetteer_datastore/gazetteer.html", page)
