"""Transactions that a task may commit with: those of an alias of DATABASES, and those of a client of Datastore.

Everything else knows either by the name of its place, a str.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from django.db import connections, transaction

from soc_tasks.errors import ConfigurationError
from soc_tasks.state import datastore_units, get_state


class ClientAlias(str):
    """The place that a client of Datastore writes to: what an alias is among DATABASES.

    Args:
        client: the client. Two of the same project, database and namespace are equal here.
    """

    client: Any

    def __new__(cls, client: Any) -> ClientAlias:
        """Name the place."""
        self = super().__new__(cls, f"datastore:{client.project}/{client.database or ''}/{client.namespace or ''}")
        self.client = client
        return self

    @property
    def database(self) -> str:
        """Return the project and database, whose namespaces one transaction can write to."""
        return self.rpartition("/")[0]


def shares_transaction(alias: str, other: str) -> bool:
    """Tell whether one transaction can write to two places."""
    if isinstance(alias, ClientAlias) and isinstance(other, ClientAlias):
        return alias.database == other.database
    return alias == other


def is_client(value: Any) -> bool:
    """Tell whether a value is a client of Datastore; where that was never imported, nothing is."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "google.cloud.datastore.client.Client"
        for kind in type(value).__mro__
    )


def find_alias(using: Any, label: str = "using") -> str:
    """Return the place of what a caller gave: an alias of DATABASES, or a client of Datastore.

    Args:
        using: what was given.
        label: how errors call it.

    Raises:
        ConfigurationError: nothing can be kept there.
    """
    if isinstance(using, str) and not isinstance(using, ClientAlias) and using in connections:
        return using
    ours = get_state().alias
    if isinstance(ours, ClientAlias):
        if using == str(ours):
            return using if isinstance(using, ClientAlias) else ours
        if is_client(using):
            alias = ClientAlias(using)
            if alias == ours:
                return alias
            raise ConfigurationError(
                f"{label} is a client of {alias}, but soc_tasks keeps its state in {ours}: a task could not commit "
                "with that client's transactions. Give it a client of the same project, database and namespace, or "
                "set SOC_TASKS['DATASTORE_NAMESPACE'] and the like."
            )
    elif is_client(using):
        raise ConfigurationError(
            f"{label} is a client of Datastore, but SOC_TASKS['STATE'] is 'django': a task could not commit with its "
            "transactions. Set it to 'datastore'."
        )
    raise ConfigurationError(f"{label}={using!r} is no alias of DATABASES; known are {', '.join(connections)}.")


def default_alias() -> str:
    """Return where a task belongs if nobody says where: Datastore, where that holds the state, or "default"."""
    ours = get_state().alias
    return ours if isinstance(ours, ClientAlias) else "default"


def is_known(alias: str) -> bool:
    """Tell whether there is such a place here."""
    return alias in connections or alias == get_state().alias


def is_open(alias: str) -> bool:
    """Tell whether this thread has a transaction open there."""
    if isinstance(alias, ClientAlias):
        return datastore_units.find_open(alias.client) is not None
    return connections[alias].in_atomic_block


def atomic(alias: str) -> AbstractContextManager[Any]:
    """Open a transaction, or a part of the one that is open, which can be undone by itself."""
    if isinstance(alias, ClientAlias):
        return datastore_units.atomic(alias.client)
    return transaction.atomic(using=alias)


def is_doomed(alias: str) -> bool:
    """Tell whether the open transaction was given up, so that its end would undo it without a word."""
    if isinstance(alias, ClientAlias):
        return datastore_units.find_open(alias.client) is None
    return transaction.get_rollback(using=alias)


def on_commit(alias: str, hook: Callable[[], Any]) -> None:
    """Call `hook` when the open transaction has committed, or now if none is; what it raises is logged."""
    if isinstance(alias, ClientAlias):
        datastore_units.on_commit(alias.client, hook)
    else:
        transaction.on_commit(hook, using=alias, robust=True)


def find_hooks(*, django: bool = True) -> Iterator[Any]:
    """Yield what waits for the commits of this thread.

    Args:
        django: whether on aliases of DATABASES as well.
    """
    connection: Any  # run_on_commit is not in the stubs as it is
    for connection in connections.all(initialized_only=True) if django else ():
        for _, hook, _ in connection.run_on_commit:
            yield hook
    yield from datastore_units.find_hooks()
