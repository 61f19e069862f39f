"""What the iteration goes over."""

from __future__ import annotations

from django.db import models


class Row(models.Model):
    """A row."""

    value = models.IntegerField(default=0)
