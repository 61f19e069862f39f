"""How a run ended: the rows of all tables but soc_tasks' own, and the mails; and how two ends differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.core import mail
from django.db import connections, models

from soc_tasks.testing.beginnings import Beginning, find_models
from soc_tasks.testing.moments import own_tables

#: Lines of differences that are shown.
MOST_LINES: Final = 10
MAIL: Final = "mail"
#: Stands for the key of a row that the run made, whose number depends on the order of things.
NEW: Final = "(a new row)"

Columns = tuple[tuple[str, str], ...]


@dataclass
class EndState:
    """Rows by table and key; those that the run made, and mails, by what they hold, with their number."""

    rows: dict[tuple[str, str], Columns] = field(default_factory=dict)
    made: Counter[tuple[str, Columns]] = field(default_factory=Counter)

    def differences(self, other: EndState) -> Iterator[str]:
        """Yield what is otherwise in another one, a line for each."""
        for key in {**self.rows, **other.rows}:
            name = " ".join(key)
            if key not in other.rows:
                yield f"{name}: is gone"
            elif key not in self.rows:
                yield f"{name}: is there, and should not be"
            else:
                before, after = dict(self.rows[key]), dict(other.rows[key])
                changed = [f"{column} is {after[column]} instead of {before[column]}" for column in before
                           if before[column] != after[column]]  # fmt: skip
                if changed:
                    yield f"{name}: {', '.join(changed)}"
        for (name, columns), number in (self.made | other.made).items():
            expected, found = self.made[name, columns], other.made[name, columns]
            if found != expected:
                what = ", ".join(f"{column}={value}" for column, value in columns)
                yield f"{name} ({what:.200}): there {number and found} time(s) instead of {expected}"


class Reader:
    """Reads how a run ended.

    Args:
        beginning: where it began.
        read_state: reads it; None: all tables and mails.
        ignore: models and columns to leave out, as `app_label.Model` and `app_label.Model.field`.

    Raises:
        ValueError: `ignore` names what is not there.
    """

    def __init__(self, beginning: Beginning, read_state: Callable[[], Any] | None, ignore: Iterable[str]) -> None:
        self._beginning = beginning
        self._read_state = read_state
        self._ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
        self._models = [
            (alias, model)
            for alias in beginning.aliases
            for model in find_models(alias)
            if model._meta.db_table not in own_tables() and model._meta.label not in self._ignored
        ]
        known = {model._meta.label for alias in beginning.aliases for model in find_models(alias)}
        known |= {f"{model._meta.label}.{one.name}" for _, model in self._models for one in model._meta.fields}
        if unknown := sorted(self._ignored - known):
            raise ValueError(
                f"ignore names {', '.join(unknown)}, which is no model and no column here: write app_label.Model or "
                "app_label.Model.field."
            )
        self._keys = {pair: {key for key, *_ in rows} for pair, rows in self._read_tables().items()}

    def read(self) -> Any:
        """Return how it ended."""
        if self._read_state is not None:
            return self._read_state()
        rows = self._read_tables()
        made = {pair: {key for key, *_ in rows[pair]} - self._keys[pair] for pair in rows if _is_made_up(pair[1])}
        state = EndState()
        for (alias, model), table in rows.items():
            if table:
                self._add_table(state, alias, model, table, made)
        state.made.update(self._read_mails())
        return state

    def compare(self, expected: Any, found: Any) -> list[str]:
        """Return what differs, a line for each; empty: nothing."""
        if isinstance(expected, EndState) and isinstance(found, EndState):
            return sorted(expected.differences(found))
        return [] if expected == found else [f"read_state() returns {found!r:.500} instead of {expected!r:.500}"]

    def _read_tables(self) -> dict[tuple[str, type[models.Model]], list[tuple[Any, ...]]]:
        filled = {alias: self._find_filled(alias) for alias in self._beginning.aliases}
        return {
            (alias, model): self._read_rows(alias, model) if model._meta.db_table in filled[alias] else []
            for alias, model in self._models
        }

    def _find_filled(self, alias: str) -> set[str]:
        """Return which tables have rows, by one statement: most have none, run after run."""
        tables = sorted({model._meta.db_table for of, model in self._models if of == alias})
        if not tables:
            return set()
        connection = connections[alias]
        quoted = map(connection.ops.quote_name, tables)
        exist = [f"CASE WHEN EXISTS (SELECT 1 FROM {name}) THEN 1 ELSE 0 END" for name in quoted]  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(exist))
            row = cursor.fetchone()
        return {table for table, is_filled in zip(tables, row, strict=True) if is_filled}

    def _read_rows(self, alias: str, model: type[models.Model]) -> list[tuple[Any, ...]]:
        names = [column.attname for column in model._meta.local_concrete_fields]
        return list(model._base_manager.using(alias).order_by().values_list("pk", *names))

    def _add_table(
        self,
        state: EndState,
        alias: str,
        model: type[models.Model],
        table: list[tuple[Any, ...]],
        made: dict[Any, set[Any]],
    ) -> None:
        name = model._meta.label if alias == "default" else f"{model._meta.label} on {alias}"
        told = [not column.primary_key and self._is_read(column) for column in model._meta.local_concrete_fields]
        new = made.get((alias, model), set())
        for key, *values in table:
            columns = tuple(
                (column.name, _tell(column, value, alias, made))
                for column, value, is_told in zip(model._meta.local_concrete_fields, values, told, strict=True)
                if is_told
            )
            if key in new:
                state.made[name, columns] += 1
            else:
                state.rows[name, str(key)] = columns

    def _is_read(self, column: models.Field[Any, Any]) -> bool:
        automatic = getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False)
        return not automatic and f"{column.model._meta.label}.{column.name}" not in self._ignored

    def _read_mails(self) -> Iterator[tuple[str, Columns]]:
        known = set()
        for message in getattr(mail, "outbox", [])[self._beginning.mails :]:
            key = message.extra_headers.get("Message-ID")
            if key is not None:
                # Whoever gets it twice can tell.
                if key in known:
                    continue
                known.add(key)
            yield (
                MAIL,
                (("to", ", ".join(message.recipients())), ("subject", str(message.subject)), ("body", message.body)),
            )


def _is_made_up(model: type[models.Model]) -> bool:
    """Tell whether the keys of new rows say nothing of them."""
    key = model._meta.pk
    if isinstance(key, models.OneToOneField) and key.remote_field.parent_link:
        return True
    return isinstance(key, models.AutoField) or (key.has_default() and callable(key.default))


def _tell(column: models.Field[Any, Any], value: Any, alias: str, made: dict[Any, set[Any]]) -> str:
    remote = getattr(column.remote_field, "model", None)
    if value is not None and isinstance(remote, type) and issubclass(remote, models.Model):
        target: Any = remote._meta.concrete_model
        if value in made.get((alias, target), ()):
            return NEW
    return repr(bytes(value)) if isinstance(value, memoryview) else repr(value)
