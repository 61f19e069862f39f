"""`tasks relay`: hand on what a process that died left behind."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from soc_tasks.backends import get_backend
from soc_tasks.logic.upkeep import reissue_stuck

help = "Hand on tasks from the outboxes, and queue stuck iterations anew."


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options: none."""


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Relay once."""
    handed_on = get_backend().relay()
    stuck = reissue_stuck()
    command.stdout.write(f"{handed_on} tasks handed on, {stuck} stuck shards queued anew")
