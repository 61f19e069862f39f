"""Rows by column: what tasks of one call have in common is sent once, and read once by the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from soc_tasks.engine.store.rows import GIVEN


class Columns(NamedTuple):
    """The columns of some rows of `GIVEN`.

    Args:
        places: for each column the number of its list, or None: one value serves all rows.
        values: those values, in the order of their columns.
        kinds: of what type each list is.
        lists: the columns whose values differ, each once: a task that nobody named is called by its start id.
    """

    places: list[int | None]
    values: list[Any]
    kinds: list[str]
    lists: list[tuple[Any, ...]]


def split(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Return the columns of rows, of which there is one at least."""
    columns = Columns([], [], [], [])
    for kind, column in zip(GIVEN.values(), zip(*rows, strict=True), strict=True):
        if column.count(column[0]) == len(column):
            columns.places.append(None)
            columns.values.append(column[0])
            continue
        for number, known in enumerate(columns.lists):
            if columns.kinds[number] == kind and known == column:
                columns.places.append(number)
                break
        else:
            columns.places.append(len(columns.lists))
            columns.kinds.append(kind)
            columns.lists.append(column)
    return columns
