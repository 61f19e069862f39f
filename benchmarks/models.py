"""What the iteration goes over."""

from __future__ import annotations

from django.db import models


class Row(models.Model):
    """A row."""

    value = models.IntegerField(default=0)


class Marker(models.Model):
    """Counts shards that are done, as djangae's marker does."""

    done = models.IntegerField(default=0)
