"""The count: effects on Datastore exactly once."""

from examples.gazetteer_datastore.kinds import add, count_cities
from soc_tasks import DatastoreLogic, iterative_task
from soc_tasks.state.datastore import get_client


def finish_count(context):
    """Note on the count that it has ended, and how often: once."""
    client = get_client()
    count = client.get(client.key("Count", context["count_id"]))
    count["finished"] += 1
    client.put(count)


class Cities(DatastoreLogic):
    """The cities, whose number was noted when they were put: Datastore's emulator counts by reading every key."""

    def count(self, filter=None):
        """Return the number that was noted."""
        return count_cities(self.client)


@iterative_task(Cities("City"), atomic=True, batch_size=290, shards=4, finalize=finish_count)
def add_population(request, entities, context):
    """Add the population of each city of the batch to its country's total.

    The view runs in a transaction of the client that `get_client` returns: the totals and the place where the iteration
    stands commit together, or not at all. (Datastore gives 300 entities at a time, one of which is the next batch's.)
    """
    found = {}
    for city in entities:
        code = city.key.parent.name
        cities, population = found.get(code, (0, 0))
        found[code] = cities + 1, population + city["population"]
    add(get_client(), context["count_id"], found)
