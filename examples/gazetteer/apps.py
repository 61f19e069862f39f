"""App of the gazetteer."""

from django.apps import AppConfig


class GazetteerConfig(AppConfig):
    name = "examples.gazetteer"
