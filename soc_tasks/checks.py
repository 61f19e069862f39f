"""System checks: what would keep tasks from running, said before they are needed.

Each has an id and a line in docs/reference/checks.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseError
from django.db import connections
from django.http.request import split_domain_port, validate_host

from soc_tasks.conf import Settings, find_problems, get_queues, get_settings
from soc_tasks.errors import ConfigurationError, NotSupportedError

DOCS = "See docs/reference/checks.md#{}."


def _settings_are_good() -> bool:
    try:
        get_settings()
        get_queues()
    except ConfigurationError:
        return False
    return True


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001, E002: SOC_TASKS and CLOUD_TASKS_QUEUES can be read."""
    found: list[CheckMessage] = [
        Error(problem, hint=DOCS.format("soc_taskse001"), id="soc_tasks.E001")
        for problem in find_problems(getattr(django_settings, "SOC_TASKS", {}))
    ]
    try:
        get_queues()
    except ConfigurationError as error:
        found.append(Error(str(error), hint=DOCS.format("soc_taskse002"), id="soc_tasks.E002"))
    if not found and get_settings().database not in connections:
        found.append(
            Error(
                f"SOC_TASKS['DATABASE'] is {get_settings().database!r}, which is no alias of DATABASES.",
                hint=DOCS.format("soc_taskse003"),
                id="soc_tasks.E003",
            )
        )
    return found


@register()
def check_rooms(**_: Any) -> list[CheckMessage]:
    """E005: backend and state can be loaded."""
    if not _settings_are_good():
        return []
    from soc_tasks.backends import get_backend
    from soc_tasks.state import get_state

    found: list[CheckMessage] = []
    for load in (get_backend, get_state):
        try:
            load()
        except (ConfigurationError, NotSupportedError) as error:
            found.append(Error(str(error), hint=DOCS.format("soc_taskse005"), id="soc_tasks.E005"))
    return found


@register()
def check_apps(**_: Any) -> list[CheckMessage]:
    """E004: the embedded engine's app is installed."""
    if not _settings_are_good() or get_settings().backend != "embedded" or apps.is_installed("soc_tasks.engine"):
        return []
    return [
        Error(
            "The embedded engine's tables are not installed.",
            hint='Add "soc_tasks.engine" to INSTALLED_APPS and run migrate. ' + DOCS.format("soc_taskse004"),
            id="soc_tasks.E004",
        )
    ]


@register()
def check_dispatch(**_: Any) -> list[CheckMessage]:
    """E007: dispatch by HTTP knows where to."""
    if not _settings_are_good() or get_settings().backend != "embedded":
        return []
    if get_settings().dispatch != "http" or get_settings().url is not None:
        return []
    return [
        Error(
            "SOC_TASKS['DISPATCH'] is 'http', and SOC_TASKS['URL'] does not say where this site is.",
            hint="Set it to the base URL at which workers reach the site. " + DOCS.format("soc_taskse007"),
            id="soc_tasks.E007",
        )
    ]


@register()
def check_tokens(**_: Any) -> list[CheckMessage]:
    """E008: with HTTP targets of Cloud Tasks it is known whose tokens prove a call, and what for."""
    if not _settings_are_good() or get_settings().backend != "cloud_tasks" or get_settings().target != "http":
        return []
    missing = []
    if not get_settings().service_account:
        missing.append("SOC_TASKS['SERVICE_ACCOUNT'], the e-mail address of the account whose tokens Cloud Tasks sends")
    if not get_settings().effective_audience:
        missing.append("SOC_TASKS['URL'], the base URL of this site, which tokens are made for")
    return [
        Error(
            "Nothing proves a call of Cloud Tasks: each is answered with 403.",
            hint=f"Set {each}. " + DOCS.format("soc_taskse008"),
            id="soc_tasks.E008",
        )
        for each in missing
    ]


@register(deploy=True)
def check_issuer(**_: Any) -> list[CheckMessage]:
    """W008: in production tokens are Google's; in development they need not be: runs with `check --deploy` only."""
    if not _settings_are_good() or get_settings().backend != "cloud_tasks":
        return []
    others = [
        name
        for name, field in Settings.__dataclass_fields__.items()
        if name in ("oidc_issuer", "oidc_certs_url") and getattr(get_settings(), name) != field.default
    ]
    if not others:
        return []
    names = " and ".join(f"SOC_TASKS[{name.upper()!r}]" for name in others)
    return [
        Warning(
            f"{names} differ from Google's: whoever holds those keys can call every task.",
            hint="Leave them out where the site is open to others. " + DOCS.format("soc_tasksw008"),
            id="soc_tasks.W008",
        )
    ]


def _find_dispatch_host() -> tuple[str, str] | None:
    """Return the Host header of tasks and the setting that it comes from; None where tasks have nowhere to go."""
    if not _settings_are_good() or get_settings().backend != "embedded":
        return None
    if get_settings().dispatch == "http" and get_settings().url is None:
        return None
    from soc_tasks.engine.dispatch import dispatch_host  # loads Django's handlers

    return dispatch_host(), "URL" if get_settings().dispatch == "http" else "HOST"


@register()
def check_host(**_: Any) -> list[CheckMessage]:
    """W001: the site lets tasks through that are dispatched to it."""
    found = _find_dispatch_host()
    if found is None:
        return []
    host, setting = found
    allowed = django_settings.ALLOWED_HOSTS
    if django_settings.DEBUG and not allowed:
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    domain, _port = split_domain_port(host)
    if domain and validate_host(domain, allowed):
        return []
    return [
        Warning(
            f"Tasks are dispatched to the site as {host!r}, which ALLOWED_HOSTS refuses: every one would get a 400.",
            hint=f"Set SOC_TASKS[{setting!r}] to a name that ALLOWED_HOSTS holds. " + DOCS.format("soc_tasksw001"),
            id="soc_tasks.W001",
        )
    ]


@register()
def check_middleware(**_: Any) -> list[CheckMessage]:
    """W002: no middleware of Django's redirects tasks away."""
    dispatched = _find_dispatch_host()
    if dispatched is None:
        return []
    host, setting = dispatched
    found: list[CheckMessage] = []
    installed = set(django_settings.MIDDLEWARE)
    if (
        "django.middleware.common.CommonMiddleware" in installed
        and django_settings.PREPEND_WWW
        and not host.startswith("www.")
    ):
        found.append(
            Warning(
                f"PREPEND_WWW would redirect tasks, which are dispatched to {host!r}.",
                hint=f"Have SOC_TASKS[{setting!r}] name 'www.{host}'. " + DOCS.format("soc_tasksw002"),
                id="soc_tasks.W002",
            )
        )
    if (
        setting == "URL"
        and "django.middleware.security.SecurityMiddleware" in installed
        and django_settings.SECURE_SSL_REDIRECT
        and urlsplit(str(get_settings().url)).scheme == "http"
    ):
        found.append(
            Warning(
                "SECURE_SSL_REDIRECT would redirect tasks, which are dispatched to a URL that begins with http://.",
                hint="Have SOC_TASKS['URL'] begin with https://. " + DOCS.format("soc_tasksw002"),
                id="soc_tasks.W002",
            )
        )
    return found


@register(deploy=True)
def check_probe(**_: Any) -> list[CheckMessage]:
    """W005: no middleware at all stops a task; runs with `check --deploy` only, since it makes a request."""
    if not _settings_are_good() or get_settings().backend != "embedded":
        return []
    from soc_tasks.probe import ARRIVED, send_probe  # loads Django's handlers

    answer = send_probe()
    if answer.status == ARRIVED:
        return []
    return [
        Warning(
            f"The site's middleware answers tasks with {answer.status} before they reach their view.",
            hint="Let requests to task views pass, such as those whose view has the attribute soc_tasks_options. "
            + DOCS.format("soc_tasksw005"),
            id="soc_tasks.W005",
        )
    ]


@register()
def check_indexes(**_: Any) -> list[CheckMessage]:
    """E006, W006: each iteration can work, and an index serves its order."""
    from soc_tasks.logic.plans import find_missing_index, find_problem
    from soc_tasks.logic.urls import find_task_views, name_view

    found: list[CheckMessage] = []
    if not django_settings.ROOT_URLCONF:
        return found
    for view, options in find_task_views():
        if not options.iterates or not _settings_are_good():
            continue
        if problem := find_problem(options.plan):
            hint = "Correct the arguments of its @iterative_task. " + DOCS.format("soc_taskse006")
            found.append(Error(f"{name_view(view)}: {problem}", hint=hint, id="soc_tasks.E006"))
        elif problem := find_missing_index(options.plan):
            found.append(
                Warning(
                    f"{name_view(view)}: {problem}",
                    hint="Without it, the cost of a batch grows with the table. " + DOCS.format("soc_tasksw006"),
                    id="soc_tasks.W006",
                )
            )
    return found


@register()
def check_sqlite(**_: Any) -> list[CheckMessage]:
    """W004: SQLite takes its write lock when a transaction begins."""
    if not _settings_are_good() or get_settings().database not in connections:
        return []
    alias = get_settings().database
    connection = connections[alias]
    mode = str(connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or "DEFERRED").upper()
    if connection.vendor != "sqlite" or mode in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    return [
        Warning(
            f"The SQLite database {alias!r} begins transactions DEFERRED: one that reads before it writes fails with "
            "'database is locked' as soon as workers and requests write at the same time, whatever the timeout.",
            hint=f"Set DATABASES[{alias!r}]['OPTIONS']['transaction_mode'] to 'IMMEDIATE'. "
            + DOCS.format("soc_tasksw004"),
            id="soc_tasks.W004",
        )
    ]


@register()
def check_sqlite_version(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W007: this SQLite does not corrupt its write-ahead log; asks the database where databases are checked."""
    if not _settings_are_good() or get_settings().database not in connections:
        return []
    alias = get_settings().database
    connection = connections[alias]
    if connection.vendor != "sqlite" or connection.is_in_memory_db():  # type: ignore[attr-defined] # SQLite's has it
        return []
    from soc_tasks.engine.store.checkpoints import is_affected

    given = str(connection.settings_dict.get("OPTIONS", {}).get("init_command") or "").lower()
    pragmas = dict(re.findall(r"pragma\s+(\w+)\s*[=(]\s*'?(\w+)", given))
    if not is_affected(connection.Database.sqlite_version_info) or pragmas.get("wal_autocheckpoint") == "0":  # type: ignore[attr-defined]
        return []
    mode = pragmas.get("journal_mode")
    if mode is None and databases and alias in databases:
        with suppress(DatabaseError), connection.cursor() as cursor:
            mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        return []
    version = connection.Database.sqlite_version  # type: ignore[attr-defined] # as above
    other = (
        f"add 'PRAGMA wal_autocheckpoint=0' to the init_command of DATABASES[{alias!r}], so that only the worker "
        "checkpoints"
        if get_settings().backend == "embedded"
        # Nobody would checkpoint there.
        else f"have the init_command of DATABASES[{alias!r}] set journal_mode=DELETE"
    )
    return [
        Warning(
            f"SQLite {version} may corrupt the database {alias!r}, which is in WAL mode, when several processes commit "
            "at the same time (https://sqlite.org/wal.html#walresetbug).",
            hint=f"Use SQLite 3.51.3 or newer (or 3.50.7, 3.44.6), or {other}. " + DOCS.format("soc_tasksw007"),
            id="soc_tasks.W007",
        )
    ]


@register(Tags.database)
def check_tables(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W003: the tables are there. Runs where databases are checked: migrate, and check --database."""
    if sys.argv[1:2] == ["migrate"]:
        # It is about to make them.
        return []
    if not databases or not _settings_are_good() or get_settings().database not in databases:
        return []
    alias = get_settings().database
    wanted = {
        model._meta.db_table
        for label in ("soc_tasks", "soc_tasks_engine")
        if label in apps.app_configs
        for model in apps.get_app_config(label).get_models()
        if model._meta.managed
    }
    try:
        missing = wanted - set(connections[alias].introspection.table_names())
    except DatabaseError:
        # The database cannot be reached: that is said elsewhere, and louder.
        return []
    if not missing:
        return []
    return [
        Warning(
            f"The database {alias!r} lacks the tables {', '.join(sorted(missing))}.",
            hint=f"Run manage.py migrate --database {alias}. " + DOCS.format("soc_tasksw003"),
            id="soc_tasks.W003",
        )
    ]


@register(Tags.database)
def check_outboxes(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W009: tasks of other aliases commit with their transactions. Runs where databases are checked, but at migrate."""
    if sys.argv[1:2] == ["migrate"] or not _settings_are_good() or get_settings().backend == "memory":
        return []
    from soc_tasks.state.django_outbox import belongs_on, has_table

    found: list[CheckMessage] = []
    for alias in databases or ():
        # A router that keeps our tables away says that no task is meant to be started there.
        if alias == get_settings().database or alias not in connections or not belongs_on(alias):
            continue
        with suppress(DatabaseError):
            if not has_table(alias):
                found.append(_lacks_outbox(alias))
    return found


def _lacks_outbox(alias: str) -> CheckMessage:
    return Warning(
        f"The database {alias!r} has no outbox: a task of one of its transactions is lost if the process dies between "
        "the commit and the queueing of the task.",
        hint=f"Run manage.py migrate soc_tasks --database {alias}. If no task is started with using={alias!r}, have a "
        "database router keep soc_tasks away from there. " + DOCS.format("soc_tasksw009"),
        id="soc_tasks.W009",
    )
