"""Where log lines go when the site does not say."""

from __future__ import annotations

import logging
from typing import Final

from soc_tasks.logs import JsonFormatter, KeyValueFormatter

#: The formats of `tasks run --log-format`.
FORMATS: Final[dict[str, type[logging.Formatter]]] = {"keyvalue": KeyValueFormatter, "json": JsonFormatter}


def show_log_lines(level: int, form: str = "keyvalue") -> bool:
    """Have the library's log lines on standard error; return False where the site has a handler for them.

    Args:
        level: the lowest level that is shown.
        form: a key of FORMATS.
    """
    logger = logging.getLogger("soc_tasks")
    if logger.hasHandlers():
        return False
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[form]())
    logger.addHandler(handler)
    logger.setLevel(level)
    return True


def format_line(text: str, form: str) -> str:
    """Return a line for standard output in the format of the log.

    Args:
        text: what it says.
        form: a key of FORMATS; in the first, lines are plain.
    """
    if form == "keyvalue":
        return text
    return FORMATS[form]().format(logging.LogRecord("soc_tasks.engine", logging.INFO, "", 0, text, None, None))
