"""What of a task is kept as text, wherever it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import simplejson

from soc_tasks.values import RetryOptions, Task

#: Those that have a column of their own everywhere.
_PLAIN = ("queue", "name", "path", "script_name", "start_id")
#: The names of all texts.
TEXTS = (*_PLAIN, "headers", "options")
_RARE = ("service", "version", "instance", "dispatch_deadline", "named")


def describe_task(task: Task) -> dict[str, str]:
    """Return the texts that a task is kept as, beside its body and when it was created."""
    options: dict[str, Any] = {name: value for name in _RARE if (value := getattr(task, name))}
    if task.retry is not None:
        options["retry"] = task.retry.as_dict()
    if task.eta is not None:
        options["eta"] = task.eta.isoformat()
    return {
        **{name: getattr(task, name) for name in _PLAIN},
        "headers": simplejson.dumps(dict(task.headers)),
        "options": simplejson.dumps(options),
    }


def rebuild_task(texts: Mapping[str, str], body: bytes, created: datetime) -> Task:
    """Return the task that `describe_task` was given."""
    options: dict[str, Any] = simplejson.loads(texts["options"])
    plain: dict[str, Any] = {name: texts[name] for name in _PLAIN}
    retry, eta = options.pop("retry", None), options.pop("eta", None)
    return Task(
        **plain,
        headers=simplejson.loads(texts["headers"]),
        body=body,
        created=created,
        retry=None if retry is None else RetryOptions(**retry),
        eta=None if eta is None else datetime.fromisoformat(eta),
        **options,
    )


def spell_out(text: str) -> str:
    """Return a text as every store can keep it: NUL and lone surrogates, as file names bring them, spelled out."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
