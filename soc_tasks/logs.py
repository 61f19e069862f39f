"""Log lines: one for each attempt of a task, with its facts by name; and the formatters that write them.

For a site's own LOGGING:

    "formatters": {"tasks": {"()": "soc_tasks.logs.JsonFormatter"}}

A line never holds a body, a context or the value of a header; of a path, what stands before its query. What comes from
elsewhere (names, paths, messages) cannot break out of its line, or forge another.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from typing import Any, Final

logger = logging.getLogger("soc_tasks")

#: What stands as it is; everything else is quoted, by the rules of JSON strings.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+~,;*()<>-]+").fullmatch
#: What a terminal would act on, or take for the end of a line.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Facts(dict[str, Any]):
    """What a line tells of one task, by name; as text, `name=value` pairs. The one argument of its record."""

    def __str__(self) -> str:
        return " ".join([f"{name}={_show(value)}" for name, value in self.items()])


def log_task(
    *,
    queue: str,
    task: str,
    path: str,
    attempt: int,
    outcome: str,
    status: int | None = None,
    seconds: float | None = None,
    wait: float | None = None,
    error: str | None = None,
    start: str | None = None,
    function: str | None = None,
    level: int = logging.INFO,
) -> None:
    """Write the one line of an attempt that has ended; what is None is left out.

    Args:
        queue: its queue.
        task: its name.
        path: its path; a query is cut off.
        attempt: which attempt, from 1.
        outcome: "done", "retry", "dead", "busy", "unknown", "duplicate" or "stale".
        status: HTTP status of the answer.
        seconds: how long it took.
        wait: how long it had been due when it began.
        error: the class of what was raised, or what ended it in place of an answer.
        start: its start id, if any; left out where that is its name.
        function: the dotted name of the function that it calls, if any.
        level: level of the line.
    """
    if not logger.isEnabledFor(level):
        return
    facts = Facts(queue=queue, task=task, path=path.partition("?")[0], attempt=attempt, outcome=outcome)
    if status is not None:
        facts["status"] = status
    if seconds is not None:
        facts["ms"] = round(seconds * 1000, 2)
    if wait is not None:
        facts["wait_ms"] = round(max(0.0, wait) * 1000, 2)
    if error is not None:
        facts["error"] = error
    if function:
        facts["function"] = function
    if start and start != task:
        facts["start"] = start
    logger.log(level, "task %s", facts)


def name_error(error: BaseException) -> str:
    """Return the class of an exception as a line names it."""
    kind = type(error)
    module, _, _ = kind.__module__.partition(".")
    return kind.__qualname__ if module in ("builtins", "soc_tasks") else f"{kind.__module__}.{kind.__qualname__}"


class _StampingFormatter(logging.Formatter):
    """Makes the facts that every line begins with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._second = (-1, "")

    def gather(self, record: logging.LogRecord) -> Facts:
        """Return what a record tells, its traceback aside."""
        whole = int(record.created)
        second = self._second
        if second[0] != whole:
            second = self._second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
        facts = Facts(
            time=f"{second[1]}.{min(999, round((record.created - whole) * 1000)):03d}Z",
            level=record.levelname,
            pid=record.process,
        )
        if isinstance(record.args, Facts):
            # "task" or "queued".
            facts["event"] = str(record.msg).partition(" ")[0]
            facts.update(record.args)
            return facts
        facts.update(event="log", logger=record.name, message=record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"] = name_error(record.exc_info[1])
        return facts

    @staticmethod
    def trace(record: logging.LogRecord) -> str:
        """Return the traceback or the stack of a record, or an empty text."""
        if record.exc_info and record.exc_info[1] is not None:
            return "".join(traceback.format_exception(*record.exc_info))
        return record.exc_text or record.stack_info or ""


class JsonFormatter(_StampingFormatter):
    """Writes one JSON object a line, in ASCII; tracebacks as the field `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        facts = self.gather(record)
        if trace := self.trace(record):
            facts["traceback"] = trace
        return _dump(facts)


class KeyValueFormatter(_StampingFormatter):
    """Writes `name=value` pairs, one line a record; lines of a traceback follow, each of them indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its traceback."""
        line = str(self.gather(record))
        trace = self.trace(record)
        return "\n".join([line, *(f"    {_tame(part)}" for part in trace.splitlines())]) if trace else line


# One encoder for all; json.dumps() with options makes one for each call.
_dump = json.JSONEncoder(separators=(", ", ": "), default=str).encode


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN(value) else _dump(value)
    return repr(value) if isinstance(value, (int, float)) else _dump(value)


def _tame(line: str) -> str:
    """Return a line without what a terminal would act on."""
    visible = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], line)
    return visible.encode("utf-8", "backslashreplace").decode("utf-8")
