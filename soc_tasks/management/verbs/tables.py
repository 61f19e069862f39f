"""How verbs print tables and times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand


def write_table(command: BaseCommand, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in columns; numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(heads, *texts, strict=True)]
    command.stdout.write("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row, text in zip(rows, texts, strict=True):
        cells = [
            piece.rjust(width) if isinstance(cell, int) else piece.ljust(width)
            for cell, piece, width in zip(row, text, widths, strict=True)
        ]
        command.stdout.write("  ".join(cells).rstrip())


def show_age(now: datetime, since: datetime | None) -> str:
    """Return how long ago something was, in one unit; "-" for never."""
    if since is None:
        return "-"
    seconds = (now - since).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.1f} s"
