"""Where log lines go when the site does not say."""

from __future__ import annotations

import logging


def show_log_lines(level: int) -> None:
    """Have the library's log lines (one for each task) on standard error, unless the site has a handler for them."""
    logger = logging.getLogger("soc_tasks")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
