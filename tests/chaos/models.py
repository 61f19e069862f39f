"""What is written down by those that get killed, so that afterwards it can be counted."""

from __future__ import annotations

from django.db import models


class Row(models.Model):
    """Is iterated over, and counts how often a batch had it."""

    hits = models.IntegerField(default=0)


class Mark(models.Model):
    """Says that a transaction which started the task of this number has committed."""

    number = models.IntegerField(unique=True)


class Effect(models.Model):
    """What the task of this number does; nothing but the library keeps it from being there twice."""

    number = models.IntegerField()
