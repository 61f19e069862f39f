"""How verbs print JSON: one object a line, times as ISO 8601 with a T, spans in seconds."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import simplejson
from django.core.management.base import BaseCommand


def add_json_option(parser: ArgumentParser, what: str = "print JSON: one object a line") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=what)


def write_json(command: BaseCommand, value: Any) -> None:
    """Print one object."""
    command.stdout.write(simplejson.dumps(value, default=_plain, ensure_ascii=False))


def write_json_lines(command: BaseCommand, values: Iterable[Any]) -> None:
    """Print objects, one a line."""
    for value in values:
        write_json(command, value)


def write_result(command: BaseCommand, options: Mapping[str, Any], text: str, **values: Any) -> None:
    """Print what a verb has done: as a sentence, or its values as JSON."""
    if options["json"]:
        write_json(command, values)
    else:
        command.stdout.write(text)


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
