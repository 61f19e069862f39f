"""Countries and cities in Django's admin."""

from django.contrib import admin

from examples.gazetteer.models import City, Country


@admin.register(Country)
class CountryAdmin(admin.ModelAdmin):
    list_display = ("code", "name", "cities", "population")
    search_fields = ("code", "name")


@admin.register(City)
class CityAdmin(admin.ModelAdmin):
    list_display = ("name", "country", "population")
    list_select_related = ("country",)
    search_fields = ("name",)
