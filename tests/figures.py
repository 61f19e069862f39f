"""Figures that tests measure: printed at once, kept in the report, and shown together at the end of a run."""

from __future__ import annotations

import pytest

_KIND = "figure"


@pytest.fixture
def note_figure(record_property, request):
    """Give a function that keeps a line for the end of the run, under the name of the test's directory."""
    name = request.path.parent.name

    def note(*parts, **figures):
        line = " ".join([f"{name}:", *map(str, parts), *(f"{key}={value}" for key, value in figures.items())])
        print(line)
        record_property(_KIND, line)

    return note


def pytest_terminal_summary(terminalreporter):
    """Show the figures."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = sorted(value for report in reports for name, value in report.user_properties if name == _KIND)
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
