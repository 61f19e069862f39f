"""What the statements that a connection is asked to run do: which rows they write, and what would end the transaction.

Statements are read by sqlparse's lexer, which Django brings along, and no further than needed: what follows the name of
the table may be long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlparse import lexer
from sqlparse import tokens as kinds

_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})
_CHANGES: Final = frozenset({"ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE"})
#: Words between the verb and the name of the table.
_BETWEEN: Final = frozenset({
    "ABORT", "CONCURRENTLY", "DELAYED", "EXISTS", "FAIL", "FROM", "HIGH_PRIORITY", "IF", "IGNORE", "INDEX", "INTO",
    "LOW_PRIORITY", "NOT", "ONLY", "OR", "QUICK", "REPLACE", "ROLLBACK", "TABLE", "TEMP", "TEMPORARY", "UNIQUE",
})  # fmt: skip
#: Of these an UPDATE is no verb: FOR UPDATE, FOR NO KEY UPDATE, ON DUPLICATE KEY UPDATE, DO UPDATE.
_NO_VERB_AFTER: Final = frozenset({"FOR", "KEY", "DO"})
_ENDS: Final = frozenset({"ABORT", "BEGIN", "COMMIT", "END", "START"})
#: What commits by itself on databases that cannot roll a change of the schema back.
_COMMITS: Final = _CHANGES | {"ANALYZE", "GRANT", "LOCK", "OPTIMIZE", "REPAIR", "REVOKE", "UNLOCK"}
_SAVEPOINTS: Final = frozenset({"SAVEPOINT", "RELEASE", "ROLLBACK"})


class TransactionEndedError(Exception):
    """What is to be rolled back was about to be committed, or has been."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is known of a statement.

    Args:
        first, second: its first words.
        writes: verb and table of what it writes; the last one is what its row count is of.
    """

    first: str
    second: str
    writes: tuple[tuple[str, str], ...]

    @property
    def is_savepoint(self) -> bool:
        """Tell whether it is of a transaction within the transaction."""
        return self.first in _SAVEPOINTS

    def ends_transaction(self, *, rolls_ddl_back: bool) -> bool:
        """Tell whether the transaction is over with it.

        Args:
            rolls_ddl_back: whether changes of the schema are part of the transaction.
        """
        if self.first == "ROLLBACK":
            return self.second != "TO"
        if self.first in _ENDS or (self.first, self.second) == ("PREPARE", "TRANSACTION"):
            return True
        if (self.first, self.second) == ("SET", "AUTOCOMMIT"):
            return True
        return not rolls_ddl_back and self.first in _COMMITS and self.second != "TEMPORARY"


@lru_cache(maxsize=256)
def read_statement(sql: str) -> Statement:
    """Return what is known of a statement."""
    words = _read_words(sql)
    first, second, previous, depth = "", "", "", 0
    writes: list[tuple[str, str]] = []
    for kind, text in words:
        word = text.upper()
        if not first:
            first, _, second = word.partition(" ")
        elif not second:
            second = word
        if text in ("(", ")"):
            depth += 1 if text == "(" else -1
        is_verb = kind in kinds.Keyword.DML or (not previous and first in _CHANGES)
        if is_verb and previous not in _NO_VERB_AFTER:
            verb = word.partition(" ")[0]
            if verb in _WRITES | _CHANGES:
                table, after = _read_table(words)
                second = second or after.upper()
                writes.append((verb, table))
            if depth == 0:
                # In a WITH there may be more before it.
                break
        previous = word
    return Statement(first, second or next((text.upper() for _, text in words), ""), tuple(writes))


def _read_words(sql: str) -> Iterator[tuple[Any, str]]:
    for kind, text in lexer.tokenize(sql):  # type: ignore[no-untyped-call]
        if kind not in kinds.Whitespace and kind not in kinds.Comment:
            yield kind, text


def _read_table(words: Iterator[tuple[Any, str]]) -> tuple[str, str]:
    """Return the name of the table that a verb is about, without quotes, and the word behind the verb."""
    name = after = ""
    for kind, text in words:
        after = after or text
        if not name and kind not in kinds.Literal and text.upper().partition(" ")[0] in _BETWEEN:
            continue
        if text == ".":
            name += text
        elif not name or name.endswith("."):
            name += text.strip('"`[]')
        else:
            break
    return name, after


class Watch:
    """Looks at what connections are asked to do; `connection.execute_wrapper` takes it.

    Attributes:
        is_counting: whether statements count.
        queries: how many were run.
        rows: rows written, by alias, verb and table.
        statements: statements that wrote, likewise.
    """

    def __init__(self) -> None:
        self.is_counting = False
        self.queries = 0
        self.rows: Counter[tuple[str, str, str]] = Counter()
        self.statements: Counter[tuple[str, str, str]] = Counter()
        self._last: tuple[tuple[str, str, str], Any] | None = None

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Run a statement.

        Raises:
            TransactionEndedError: it would commit, or end the transaction otherwise; it was not run.
        """
        connection = context["connection"]
        statement = read_statement(sql if isinstance(sql, str) else str(sql))
        if statement.ends_transaction(rolls_ddl_back=connection.features.can_rollback_ddl):
            raise TransactionEndedError(
                f"{statement.first} {statement.second}".strip() + " would end the transaction that a dry run rolls "
                "back, and was not run: what needs transactions of its own cannot be tried dry."
            )
        self.settle()
        if not self.is_counting or statement.is_savepoint:
            return execute(sql, params, many, context)
        self.queries += 1
        result = execute(sql, params, many, context)
        for verb, table in statement.writes:
            key = (connection.alias, verb, table)
            self.statements[key] += 1
            # Not every driver tells before the returned rows are read, nor once the cursor is closed.
            written = _count(context["cursor"])
            self.rows[key] += written
            self._last = (key, context["cursor"]) if not written else None
        return result

    def settle(self) -> None:
        """Take down how many rows the last statement wrote: a cursor that returns rows knows when these are read."""
        if self._last is not None:
            key, cursor = self._last
            self._last = None
            self.rows[key] += _count(cursor)


def _count(cursor: Any) -> int:
    return max(0, getattr(cursor, "rowcount", 0) or 0)
