"""What is deferred everywhere: a function that does nothing but count, called with a number and a text."""

from __future__ import annotations

from benchmarks import marks


def noop(number: int, address: str) -> None:
    """Say that it ran."""
    marks.hit()


def arguments(number: int) -> tuple[int, str]:
    """Return what a call is made with."""
    return number, f"student-{number}@example.org"
