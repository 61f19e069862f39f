"""The count: database effects exactly once."""

from collections import Counter

from django.db.models import F

from examples.gazetteer.models import City, Country
from soc_tasks import FatalTaskError, iterative_task


@iterative_task(City, atomic=True, batch_size=500)
def add_population(request, entities, context):
    """Add the population of each city of the batch to its country's total.

    Adding is no work that may be done twice, and it need not be: with `atomic=True` the additions and the place where
    the iteration stands commit together, or not at all.
    """
    population, cities = Counter(), Counter()
    for city in entities:
        population[city.country_id] += city.population
        cities[city.country_id] += 1
    for code, number in cities.items():
        country = Country.objects.filter(code=code, count_id=context["count_id"])
        if not country.update(population=F("population") + population[code], cities=F("cities") + number):
            raise FatalTaskError(f"A later count has taken over from {context['count_id']}: this one ends here.")
