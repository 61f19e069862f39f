"""What runs everywhere: a function that does nothing but count, called with nothing, or with a number and a text."""

from __future__ import annotations

from benchmarks import marks


def noop(number: int = 0, address: str = "") -> None:
    """Say that it ran."""
    marks.hit()


def arguments(number: int) -> tuple[int, str]:
    """Return what a deferred call is made with."""
    return number, f"student-{number}@example.org"
