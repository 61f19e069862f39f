"""Settings: one frozen value, read from `settings.SOC_TASKS`, each key typed, defaulted and checked.

Nothing here is read at import. `override_settings` works: the cache is dropped when a setting changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from soc_tasks.errors import ConfigurationError
from soc_tasks.http_targets import read_target
from soc_tasks.values import DEFAULT_RETRY, QueueOptions, RetryOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of `SOC_TASKS`, in lower case."""

    #: "embedded", "cloud_tasks", "memory" (tests) or the dotted path of a backend.
    backend: str = "embedded"
    #: The alias that holds the engine's tables and the library's own.
    database: str = "default"
    #: How the embedded engine calls tasks: "in_process" or "http" (this site at `url`).
    dispatch: str = "in_process"
    #: Base URLs of other services by name, for tasks that are started with a `service`.
    services: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Host header of in-process dispatch; None takes the first concrete entry of ALLOWED_HOSTS.
    host: str | None = None
    #: Seconds after which a slice of an iteration hands over to the next; None: 25, on App Engine 570.
    slice_seconds: float | None = None
    #: Seconds that a batch of an iteration should take, where its size is not given.
    batch_seconds: float = 1.0
    #: Seconds without a heartbeat after which a worker's tasks and shards go to others.
    lease_seconds: float = 30.0
    #: Seconds for which a chosen task name stays taken after the task has ended (Cloud Tasks: up to 24 hours).
    tombstone_seconds: float = 86400.0
    #: Days for which receipts, ended iterations, dead letters and undelivered tasks are kept (Cloud Tasks: 31).
    retention_days: float = 31.0
    #: Whether `manage.py runserver` runs due tasks by itself (embedded backend).
    runserver: bool = True
    #: cloud_tasks: "app_engine" or "http".
    target: str = "app_engine"
    #: Base URL of this site, for whoever calls it by HTTP: the engine's worker, or Cloud Tasks with the http target.
    url: str | None = None
    #: http target: the account whose OIDC token is sent and demanded.
    service_account: str | None = None
    #: http target: audience of that token; None takes `url`.
    audience: str | None = None
    #: cloud_tasks: the account whose OIDC token Cloud Scheduler sends; None takes `service_account`.
    cron_service_account: str | None = None
    #: Who issues those tokens, and where the keys are that they are judged by: others than Google's for development.
    oidc_issuer: str = "https://accounts.google.com"
    oidc_certs_url: str = "https://www.googleapis.com/oauth2/v1/certs"
    #: cloud_tasks: whether tasks stay on the running version; else they go to the latest.
    pin_version: bool = False
    #: "django" or "datastore": where payloads, runs, outbox and dead letters live.
    state: str = "django"
    #: Datastore: dotted path of a callable that returns the client; None: one is made of the next three.
    datastore_client: str | None = None
    #: Datastore: project (None: the environment's, or CLOUD_TASKS_PROJECT_ID), database and namespace.
    datastore_project: str | None = None
    datastore_database: str | None = None
    datastore_namespace: str | None = None
    #: Whose sessions may read overview and metrics: "superuser", "staff", a permission "app.codename"; None: nobody's.
    metrics_access: str | None = "staff"
    #: Bearer token that lets a scraper read them; None: there is none.
    metrics_token: str | None = field(default=None, repr=False)
    #: More packages whose functions may be deferred.
    deferrable: tuple[str, ...] = ()

    @property
    def effective_slice_seconds(self) -> float:
        """Return the length of a slice in seconds, by the platform where none is set."""
        if self.slice_seconds is not None:
            return self.slice_seconds
        # gunicorn ends a request after 30 s; App Engine gives a task 10 minutes (djangae stops at 9.5).
        return 570.0 if os.environ.get("GAE_ENV") == "standard" and self.backend == "cloud_tasks" else 25.0

    @property
    def effective_audience(self) -> str | None:
        """Return the audience of the tokens that are sent to this service and demanded by it; None: none is set."""
        return self.audience or (self.url.rstrip("/") if self.url else None)


_CHOICES = {
    "dispatch": ("in_process", "http"),
    "target": ("app_engine", "http"),
    "state": ("django", "datastore"),
}
_POSITIVE = ("slice_seconds", "batch_seconds", "lease_seconds", "tombstone_seconds", "retention_days")
_PATTERNS = {
    "datastore_client": (re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"), "the dotted path of a callable"),
    "datastore_project": (re.compile(r"[A-Za-z0-9:.-]{1,100}"), "the id of a project"),
    "datastore_database": (re.compile(r"[a-z][a-z0-9-]{2,61}[a-z0-9]"), "the id of a database, or left out"),
    "metrics_access": (re.compile(r"superuser|staff|\w+\.\w+"), "'superuser', 'staff', a permission, or None"),
    "datastore_namespace": (re.compile(r"[0-9A-Za-z._-]{1,100}"), "1 to 100 of A-Z, a-z, 0-9, '.', '_' and '-'"),
}
#: Characters of a token that can hardly be guessed.
_SHORTEST_TOKEN = 16
_CLIENT_PARTS = ("DATASTORE_PROJECT", "DATASTORE_DATABASE", "DATASTORE_NAMESPACE")
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "bool": (bool,),
    "tuple[str, ...]": (tuple, list),
    "Mapping[str, str]": (Mapping,),
}


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    # True is an int to Python, and no number of seconds.
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _find_token_problems(value: Any) -> list[str]:
    """Return what is wrong with a token, without telling it."""
    if value is None:
        return []
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()) or " " in value:
        return ["SOC_TASKS['METRICS_TOKEN'] must be a str of ASCII characters without spaces, or None."]
    if len(value) < _SHORTEST_TOKEN:
        return [f"SOC_TASKS['METRICS_TOKEN'] must have {_SHORTEST_TOKEN} characters or more: it can be guessed."]
    return []


def find_problems(given: Any) -> list[str]:
    """Return what is wrong with a `SOC_TASKS` value, a sentence each."""
    if not isinstance(given, Mapping):
        return [f"SOC_TASKS must be a dict, not {type(given).__name__}."]
    known = {field.name.upper(): str(field.type) for field in fields(Settings)}
    problems = []
    for key, value in given.items():
        if key not in known:
            problems.append(f"SOC_TASKS[{key!r}] is no setting of soc_tasks; it knows {', '.join(sorted(known))}.")
            continue
        name, kinds = key.lower(), _TYPES[known[key]]
        if name == "metrics_token":
            problems.extend(_find_token_problems(value))
        elif not _is_of(value, kinds):
            problems.append(f"SOC_TASKS[{key!r}] must be of type {known[key]}, not {value!r}.")
        elif name in _CHOICES and value not in _CHOICES[name]:
            problems.append(f"SOC_TASKS[{key!r}] must be one of {', '.join(_CHOICES[name])}, not {value!r}.")
        elif name in _POSITIVE and value is not None and not 0 < value < float("inf"):
            problems.append(f"SOC_TASKS[{key!r}] must be above 0, not {value!r}.")
        elif known[key].startswith("tuple") and not all(isinstance(item, str) for item in value):
            problems.append(f"SOC_TASKS[{key!r}] must hold strings only, not {value!r}.")
        elif name == "url" and value is not None and (problem := find_url_problem(value)):
            problems.append(f"SOC_TASKS[{key!r}] is no base URL such as 'https://www.example.org': {problem}.")
        elif name == "oidc_issuer" and not value:
            problems.append(f"SOC_TASKS[{key!r}] must name the issuer of tokens.")
        elif name == "oidc_certs_url" and (problem := _find_certs_problem(value)):
            problems.append(f"SOC_TASKS[{key!r}] is no URL to get keys from: {problem}.")
        elif name in _PATTERNS and value is not None and not _PATTERNS[name][0].fullmatch(value):
            problems.append(f"SOC_TASKS[{key!r}] must be {_PATTERNS[name][1]}, not {value!r}.")
        elif name == "services":
            problems.extend(_find_service_problems(value))
    if given.get("DATASTORE_CLIENT") and any(given.get(name) for name in _CLIENT_PARTS):
        problems.append(
            f"SOC_TASKS['DATASTORE_CLIENT'] makes the client whole: leave {', '.join(_CLIENT_PARTS)} out, or it."
        )
    return problems


def _find_service_problems(services: Mapping[Any, Any]) -> list[str]:
    problems = []
    for service, url in services.items():
        if not isinstance(service, str) or not service:
            problems.append(f"SOC_TASKS['SERVICES'] must have names as its keys, not {service!r}.")
        elif problem := find_url_problem(url):
            problems.append(
                f"SOC_TASKS['SERVICES'][{service!r}] is no base URL such as 'https://www.example.org': {problem}."
            )
    return problems


def _find_certs_problem(url: str) -> str | None:
    """Return why keys cannot be had from a URL, or None: whoever can change them on the way lets anybody in."""
    base = re.match(r"[^/]*//[^/?#]*", url)
    if problem := find_url_problem(base[0] if base is not None and url.isascii() and url.isprintable() else url):
        return problem
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        return "it must begin with https://, but on this machine (localhost, 127.0.0.1)"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def find_url_problem(url: Any) -> str | None:
    """Return why a value cannot be the base URL of a site, or None; what may be a password is not repeated."""
    if not isinstance(url, str):
        return f"it is of type {type(url).__name__}"
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        return "it holds spaces, backslashes, control characters or letters beyond ASCII"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    if "@" in parts.netloc:
        return "it holds a user name or a password"
    if not host or port == 0:
        return "it has no host" if not host else "there is no port 0"
    if "?" in url or "#" in url:
        return "it holds a query or a fragment"
    if parts.path not in ("", "/"):
        return "it holds a path; the paths of tasks begin with the script prefix already"
    return None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings in force.

    Raises:
        ConfigurationError: a key is unknown or a value is not of its type.
    """
    given = getattr(django_settings, "SOC_TASKS", {})
    if problems := find_problems(given):
        raise ConfigurationError(" ".join(problems))
    values: dict[str, Any] = {
        key.lower(): tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    if "services" in values:
        # A copy: what is changed in place later was never checked.
        values["services"] = dict(values["services"])
    return Settings(**values)


#: The options of a queue in CLOUD_TASKS_QUEUES, and whether each is a whole number.
_QUEUE_NUMBERS = {
    "rate_per_second": False,
    "rate_max_concurrent": True,
    "retry_max_attempts": True,
    "retry_max_retry_duration": False,
    "retry_min_backoff": False,
    "retry_max_backoff": False,
    "retry_max_doublings": True,
    "log_sampling_ratio": False,
}
#: Options of a queue that are dicts of strings, and what they may hold.
_QUEUE_DICTS = {"routing": {"service", "version", "instance"}}
_QUEUE_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")


def _read_queue(given: Any) -> QueueOptions:
    """Turn one entry of CLOUD_TASKS_QUEUES into a value; numbers may be strings, as in djangae's documentation."""
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ConfigurationError(f"Each entry of CLOUD_TASKS_QUEUES must be a dict with a name, not {given!r}.")
    name = given["name"]
    if not _QUEUE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"CLOUD_TASKS_QUEUES: {name!r} is no queue name; it must match [A-Za-z0-9-] and have 1 to 100 characters."
        )
    options = {*_QUEUE_NUMBERS, *_QUEUE_DICTS, "http_target"}
    if unknown := set(given) - options - {"name"}:
        raise ConfigurationError(
            f"CLOUD_TASKS_QUEUES: queue {name!r} has unknown options {', '.join(sorted(map(str, unknown)))}; "
            f"known are {', '.join(sorted(options))}."
        )
    numbers: dict[str, Any] = {}
    for option, whole in _QUEUE_NUMBERS.items():
        value = given.get(option)
        if value is None:
            continue
        try:
            numbers[option] = int(value) if whole else float(value)
            if isinstance(value, bool) or (whole and float(value) != numbers[option]):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            kind = "a whole number" if whole else "a number"
            raise ConfigurationError(
                f"CLOUD_TASKS_QUEUES: {option} of queue {name!r} must be {kind}, not {value!r}."
            ) from None
    for option, known in _QUEUE_DICTS.items():
        value = given.get(option)
        if value is not None and not (
            isinstance(value, Mapping) and set(value) <= known and all(isinstance(item, str) for item in value.values())
        ):
            raise ConfigurationError(
                f"CLOUD_TASKS_QUEUES: {option} of queue {name!r} must be a dict of str with "
                f"{', '.join(sorted(known))}, not {value!r}."
            )
    if not 0 <= numbers.get("log_sampling_ratio", 0) <= 1:
        raise ConfigurationError(f"CLOUD_TASKS_QUEUES: log_sampling_ratio of queue {name!r} must be from 0 to 1.")
    for option in ("rate_per_second", "rate_max_concurrent"):
        if option in numbers and not 0 < numbers[option] < float("inf"):
            raise ConfigurationError(f"CLOUD_TASKS_QUEUES: {option} of queue {name!r} must be above 0.")
    retry = {option.removeprefix("retry_"): numbers[option] for option in numbers if option.startswith("retry_")}
    try:
        return QueueOptions(
            name=name,
            rate_per_second=numbers.get("rate_per_second"),
            rate_max_concurrent=numbers.get("rate_max_concurrent"),
            retry=RetryOptions(**retry).over(DEFAULT_RETRY),
            retry_given=RetryOptions(**retry),
            log_sampling_ratio=numbers.get("log_sampling_ratio"),
            routing=given.get("routing"),
            http_target=read_target(given["http_target"]) if given.get("http_target") is not None else None,
        )
    except ValueError as error:
        raise ConfigurationError(f"CLOUD_TASKS_QUEUES: queue {name!r}: {error}") from None


@lru_cache(maxsize=1)
def get_queues() -> Mapping[str, QueueOptions]:
    """Return the queues of CLOUD_TASKS_QUEUES by name; "default" exists without being configured.

    Raises:
        ConfigurationError: an entry is malformed, or a name stands twice.
    """
    queues: dict[str, QueueOptions] = {}
    listed = getattr(django_settings, "CLOUD_TASKS_QUEUES", None) or ()
    if not isinstance(listed, (list, tuple)):
        raise ConfigurationError(f"CLOUD_TASKS_QUEUES must be a list of dicts, not {type(listed).__name__}.")
    for given in listed:
        queue = _read_queue(given)
        if queue.name in queues:
            raise ConfigurationError(f"CLOUD_TASKS_QUEUES: queue {queue.name!r} stands there twice.")
        queues[queue.name] = queue
    queues.setdefault("default", QueueOptions(name="default"))
    return queues


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SOC_TASKS":
        get_settings.cache_clear()
    elif setting == "CLOUD_TASKS_QUEUES":
        get_queues.cache_clear()


setting_changed.connect(_forget, dispatch_uid="soc_tasks.conf")
