"""Where a task may go: a path of this site that resolves to a task view, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.urls import (
    NoReverseMatch,
    Resolver404,
    URLResolver,
    get_resolver,
    get_script_prefix,
    get_urlconf,
    resolve,
    reverse,
)
from django.utils.encoding import iri_to_uri
from django.utils.translation import get_language, get_language_from_path, override

#: The attribute under which a decorated view keeps its `ViewOptions`.
OPTIONS_ATTRIBUTE: Final = "soc_tasks_options"
#: Cloud Tasks' limit of a URL, after encoding.
MAX_URL_LENGTH: Final = 2083

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """What the enqueuing side must know of a decorated view.

    Args:
        plan: what it iterates over (`logic.plans.Plan`), or None for a plain task.
        max_attempts: attempts unless `retry_options` says otherwise.
        takes_queue: whether its access lets the queue in; else only sessions and cron start its tasks.
        calls_deferred: whether it is the view that calls deferred functions.
        access: tells whether a request may start its tasks.
    """

    plan: Any = None
    max_attempts: int | None = None
    takes_queue: bool = True
    calls_deferred: bool = False
    access: Callable[[Any], bool] | None = None

    @property
    def iterates(self) -> bool:
        """Tell whether a task of the view starts an iteration."""
        return self.plan is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A checked URL: path and query string, the script prefix in it, and what the view asks for."""

    path: str
    script_name: str
    options: ViewOptions


def find_options(view: Any) -> ViewOptions | None:
    """Return the options of a view that was made by `@task` or `@iterative_task`, else None."""
    options = getattr(view, OPTIONS_ATTRIBUTE, None)
    return options if isinstance(options, ViewOptions) else None


def find_task_views() -> Iterator[tuple[Callable[..., Any], ViewOptions]]:
    """Yield each decorated view of the URL conf once, with its options."""
    seen: set[int] = set()
    waiting: list[Any] = list(get_resolver().url_patterns)
    while waiting:
        pattern = waiting.pop(0)
        if isinstance(pattern, URLResolver):
            waiting.extend(pattern.url_patterns)
            continue
        options = find_options(pattern.callback)
        if options is not None and id(options) not in seen:
            seen.add(id(options))
            yield pattern.callback, options


def name_view(view: Any) -> str:
    """Return the dotted name of a view, for people; of a partial, its function's; of an instance, its class's."""
    while isinstance(view, partial):
        view = view.func
    named = view if hasattr(view, "__qualname__") else type(view)
    return f"{named.__module__}.{named.__qualname__}"


class Place(NamedTuple):
    """What a URL of this thread is made by: the script prefix, the URL conf and the language."""

    prefix: str
    urlconf: Any
    language: str | None


def find_place() -> Place:
    """Return what a URL of this thread is made by; to be asked once for many."""
    return Place(get_script_prefix(), get_urlconf() or django_settings.ROOT_URLCONF, get_language())


def resolve_target(
    url: str | Callable[..., Any],
    url_args: Sequence[Any] | None = None,
    url_kwargs: Mapping[str, Any] | None = None,
    *,
    elsewhere: bool = False,
    place: Place | None = None,
) -> Target:
    """Check where a task is to go.

    Args:
        url: a path of this site, the name of a URL pattern, or a decorated view.
        url_args: positional arguments of the pattern, for a name or a view.
        url_kwargs: keyword arguments of the pattern, for a name or a view.
        elsewhere: whether another service takes the task; then its path is checked, not resolved.
        place: what URLs are made by; None: asked now.

    Raises:
        ValueError: the URL is no path of this site, or leads to no task view.
    """
    place = find_place() if place is None else place
    if not url_args and not url_kwargs and isinstance(url, str | FunctionType):
        return _resolve_plain(url, place, elsewhere)
    return _check_path(_find_path(url, url_args, url_kwargs), place.prefix, place.urlconf, elsewhere)


@lru_cache(maxsize=4096)
def _resolve_plain(url: str | FunctionType, place: Place, elsewhere: bool) -> Target:
    """Resolve a URL without arguments, by what its path depends on: a fifth of what an enqueue costs, otherwise."""
    return _check_path(_find_path(url, None, None), place.prefix, place.urlconf, elsewhere)


def _find_path(url: str | Callable[..., Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> str:
    if isinstance(url, str) and (url.startswith("/") or _UNSAFE.search(url) or "//" in url):
        if args or kwargs:
            raise ValueError(f"url_args and url_kwargs go with the name of a URL pattern or a view, not with {url!r}.")
        return url
    if not isinstance(url, str):
        if not callable(url):
            raise ValueError(f"url must be a path, the name of a URL pattern, or a task view, not {url!r}.")
        if find_options(url) is None:
            raise ValueError(f"{url!r} is no task view: decorate it with @task or @iterative_task.")
    if args and kwargs:
        raise ValueError("A URL pattern takes url_args or url_kwargs, not both.")
    try:
        return reverse(url, args=args or None, kwargs=dict(kwargs) if kwargs else None)
    except NoReverseMatch as error:
        raise ValueError(
            f"{url!r} is neither a path of this site (these begin with '/') nor matched by a URL pattern: {error}"
        ) from error


@lru_cache(maxsize=4096)
def _check_path(url: str, prefix: str, urlconf: Any, elsewhere: bool) -> Target:
    path, mark, query = url.partition("?")
    problem = _find_problem(url, path)
    if problem:
        raise ValueError(f"{url!r} is no URL for a task: {problem}.")
    path = iri_to_uri(path)
    encoded = path + (f"?{iri_to_uri(query)}" if mark else "")
    if len(encoded) > MAX_URL_LENGTH:
        raise ValueError(f"The URL of the task has {len(encoded)} characters; at most {MAX_URL_LENGTH} are possible.")
    if elsewhere:
        return Target(path=encoded, script_name="", options=ViewOptions())
    script = iri_to_uri(prefix)
    if not path.startswith(script):
        raise ValueError(
            f"{url!r} lies outside the script prefix {prefix!r} of this site; pass the name of the URL pattern."
        )
    options = find_options(_resolve("/" + unquote(path[len(script) :]), urlconf, url))
    if options is None:
        raise ValueError(f"{url!r} leads to a view that is no task: decorate it with @task or @iterative_task.")
    return Target(path=encoded, script_name=script.rstrip("/"), options=options)


def _find_problem(url: str, path: str) -> str | None:
    decoded = unquote(path)
    if not path.startswith("/") or path.startswith("//"):
        return "it must be a path of this site, beginning with one '/'; hosts and schemes are not possible"
    if _UNSAFE.search(url) or _UNSAFE.search(decoded.replace(" ", "")):
        return "it holds spaces, backslashes or control characters; quote what belongs to it"
    if "#" in url:
        return "it holds a fragment, which is never sent"
    if any(part in (".", "..") for part in decoded.split("/")):
        return "it holds the path segment '.' or '..'"
    return None


def _resolve(path_info: str, urlconf: Any, url: str) -> Callable[..., Any]:
    # As it will be when the queue calls: by the language in the path, else the site's, never the caller's.
    language = get_language_from_path(path_info) if django_settings.USE_I18N else None
    try:
        with override(language or django_settings.LANGUAGE_CODE):
            return resolve(path_info, urlconf).func
    except Resolver404:
        hint = " (a slash is missing at its end?)" if not path_info.endswith("/") else ""
        raise ValueError(f"{url!r} is matched by no URL pattern of this site{hint}.") from None


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("ROOT_URLCONF", "LANGUAGES", "LANGUAGE_CODE", "USE_I18N"):
        _check_path.cache_clear()
        _resolve_plain.cache_clear()


setting_changed.connect(_forget, dispatch_uid="soc_tasks.urls")
