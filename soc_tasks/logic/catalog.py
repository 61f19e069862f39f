"""The tasks of a site: every URL pattern that leads to a decorated view."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from soc_tasks.logic.plans import make_source
from soc_tasks.logic.urls import ViewOptions, find_options, name_view

_SIGNS = re.compile(r"\\[AZ]|[\^$]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPattern:
    """A URL pattern that leads to a task.

    Args:
        route: the pattern as it is written, with those that include it.
        url: what `startTask` takes: the name, or the view where there is none.
        view: the view's name, for people.
        about: the first line of its docstring.
        arguments: the names of the URL's arguments, with what each is converted to.
        options: what is known of the view.
    """

    route: str
    url: str | Callable[..., Any]
    view: str
    about: str
    arguments: Mapping[str, str]
    options: ViewOptions

    @property
    def label(self) -> str:
        """Return how it is called, for people."""
        return self.url if isinstance(self.url, str) else self.view.rpartition(".")[2]

    @property
    def can_be_counted(self) -> bool:
        """Tell whether it starts an iteration, whose entities can be counted and tried dry."""
        return self.options.plan is not None and not self.options.plan.is_kept


def list_task_patterns() -> list[TaskPattern]:
    """Return the tasks of the URL conf by their routes; those whose URLs have arguments without a name are left out."""
    found = _walk(get_resolver().url_patterns, "", [], {})
    return sorted(found, key=lambda pattern: pattern.route)


def find_task_pattern(route: str) -> TaskPattern | None:
    """Return the task of a route."""
    return next((pattern for pattern in list_task_patterns() if pattern.route == route), None)


def _walk(
    patterns: list[Any], prefix: str, namespaces: list[str], converters: Mapping[str, Any]
) -> Iterator[TaskPattern]:
    for pattern in patterns:
        route = prefix + _SIGNS.sub("", str(pattern.pattern))
        inner = {**converters, **_converters(pattern)}
        if isinstance(pattern, URLResolver):
            name = [pattern.namespace] if pattern.namespace else []
            yield from _walk(pattern.url_patterns, route, namespaces + name, inner)
            continue
        options = find_options(pattern.callback)
        view = name_view(pattern.callback)
        # Those of the library itself call what `defer` was given.
        if options is None or view.startswith("soc_tasks.") or _has_unnamed(pattern):
            continue
        url = ":".join([*namespaces, pattern.name]) if pattern.name else pattern.callback
        yield TaskPattern(
            route="/" + route.removeprefix("/"),
            url=url,
            view=view,
            about=(inspect.getdoc(pattern.callback) or "").partition("\n")[0],
            arguments={name: kind for name, kind in inner.items() if name not in pattern.default_args},
            options=options,
        )


def _converters(pattern: Any) -> dict[str, str]:
    named = {name: type(one).__name__ for name, one in getattr(pattern.pattern, "converters", {}).items()}
    named = {name: kind.removesuffix("Converter").lower() for name, kind in named.items()}
    return {**dict.fromkeys(pattern.pattern.regex.groupindex, "text"), **named}


def _has_unnamed(pattern: URLPattern) -> bool:
    regex = pattern.pattern.regex
    return regex.groups > len(regex.groupindex) and not regex.groupindex


def count_entities(pattern: TaskPattern, context: Mapping[str, Any]) -> int | None:
    """Return how many entities an iteration would have, or None where that cannot be told.

    Raises:
        FatalTaskError: the context asks for something that is not there or not allowed.
    """
    if pattern.options.plan is None:
        return None
    source = make_source(pattern.options.plan, context)
    return None if source.start_key is not None else source.count()
