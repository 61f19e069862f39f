"""What a task carries, as people may see it: the context with secrets left out, and the call as a line of curl."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from django.http import QueryDict

from soc_tasks.errors import PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.forms import decode_context
from soc_tasks.meta import read_meta
from soc_tasks.values import META_HEADER, Task

#: Stands where a secret was.
MASK: Final = "********"
#: The most characters of one value that are shown.
LONGEST: Final = 4000

_SECRET = re.compile(
    r"pass(word|wd|phrase)?\b|passw|secret|token|api[_-]?key|private|credential|authoriz|cookie|signature|session", re.I
)


def is_secret(key: str) -> bool:
    """Tell whether the name of a value says that it is nobody's business."""
    return bool(_SECRET.search(key))


def mask(value: Any, key: str = "") -> Any:
    """Return a value without what its keys say is secret, at whatever depth."""
    if key and is_secret(key):
        return MASK
    if isinstance(value, Mapping):
        return {name: mask(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask(item) for item in value]
    return value


def read_context(task: Task) -> list[tuple[str, str]]:
    """Return the context of a task as names and texts, without secrets.

    What cannot be read is shown as it is sent.
    """
    form, meta = _read_form(task), read_meta(task)
    try:
        context = decode_context(form, *((meta.json_keys, meta.list_keys) if meta is not None else ()))
    except PayloadError:
        context = {key: values if len(values) > 1 else values[0] for key, values in form.lists()}
    return [(key, _write(mask(value, key))) for key, value in context.items()]


def read_headers(task: Task) -> list[tuple[str, str]]:
    """Return the headers of a task without secrets."""
    return [(name, MASK if is_secret(name) else value) for name, value in task.headers.items()]


def write_curl(task: Task, base: str) -> str:
    """Return the call that a queue makes for a task as a line of curl, without what proves it, and without secrets.

    Args:
        task: the task.
        base: scheme and host of the site.
    """
    fields = [f"{quote_plus(key)}={quote_plus(MASK if is_secret(key) else value)}" for key, value in _pairs(task)]
    parts = ["curl", "-X", "POST", base + task.path]
    for name, value in task.headers.items():
        if name != META_HEADER:
            parts += ["-H", f"{name}: {MASK if is_secret(name) else value}"]
    if fields:
        parts += ["--data", "&".join(fields)]
    return shlex.join(parts)


def _pairs(task: Task) -> list[tuple[str, str]]:
    return [(key, value) for key, values in _read_form(task).lists() for value in values]


def _read_form(task: Task) -> QueryDict:
    try:
        return QueryDict(task.body.decode("ascii"), encoding="utf-8")
    except UnicodeDecodeError:
        form = QueryDict(mutable=True)
        form["body"] = task.body.decode("utf-8", "replace")
        return form


def _write(value: Any) -> str:
    text = value if isinstance(value, str) else payloads.dumps(value, "context")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
