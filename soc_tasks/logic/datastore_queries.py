"""Kinds of Google's Datastore as sources: the client, queries made of parts, and what the service refuses, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.datastore_filters import Condition, describe_index, read_filter
from soc_tasks.logic.datastore_keys import KEY, Path
from soc_tasks.state import datastore_client

#: How many entities or keys are read at once where all of a kind are.
PAGE: Final = 1000

_NAMESPACE: Final = re.compile(r"[0-9A-Za-z._-]{1,100}")


def get_client(given: Any = None) -> Any:
    """Return the client to read with: the one that was given, or this process's own."""
    return given if given is not None else datastore_client.get_client()


def is_query(value: Any) -> bool:
    """Tell whether a value is a query of Datastore's client; where that was never imported, nothing is."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "google.cloud.datastore.query.Query" for kind in type(value).__mro__
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is read of a kind, as parts that any client can make a query of.

    Args:
        name: the kind.
        client: the client to read with; None: the process's own.
        project: the project, where it is not the client's.
        namespace: the namespace; None: the client's.
        ancestor: the key under which the entities are.
        conditions: what restricts them.
        projection: the properties that are read; `KEY` alone for none; empty for all.
    """

    name: str
    client: Any = None
    project: str | None = None
    namespace: str | None = None
    ancestor: Any = None
    conditions: tuple[Condition, ...] = ()
    projection: tuple[str, ...] = ()

    def make_query(
        self, conditions: Iterable[Condition], order: Sequence[str] = (), projection: Sequence[str] = ()
    ) -> Any:
        """Return a query of the client for the entities that meet conditions; its own are not added to them."""
        from google.cloud.datastore.query import PropertyFilter, Query

        project, namespace = self._place()
        return Query(
            get_client(self.client),
            kind=self.name,
            project=project,
            namespace=namespace,
            ancestor=self.ancestor,
            filters=[PropertyFilter(*one) for one in conditions],
            order=list(order),
            projection=list(projection),
        )

    def make_key(self, path: Path) -> Any:
        """Return the key of a path, in the place that is read."""
        from google.cloud.datastore import Key

        project, namespace = self._place()
        database = get_client(self.client).database
        return Key(*path, project=project, namespace=namespace, database=database)

    def _place(self) -> tuple[str, str | None]:
        """Return project and namespace."""
        client = get_client(self.client)
        namespace = self.namespace
        if namespace is None:
            namespace = client.namespace if self.ancestor is None else self.ancestor.namespace
        return self.project or client.project, namespace

    @property
    def is_keys_only(self) -> bool:
        """Tell whether nothing but keys is read."""
        return self.projection == (KEY,)


def make_kind(name: Any, client: Any, namespace: Any, ancestor: Any) -> Kind:
    """Return a kind by its name.

    Raises:
        TypeError, ValueError: a part of it is of the wrong kind, or Datastore has no such names.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"DatastoreLogic takes the name of a kind, or a query of Datastore's client, not {name!r:.100}."
        )
    if not name or len(name.encode()) > 1500 or re.fullmatch("__.*__", name):
        raise ValueError(f"{name!r:.100} is no name of a kind.")
    if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        raise ValueError(
            f"{namespace!r:.200} is no namespace: Datastore takes 1 to 100 of A-Z, a-z, 0-9, '.', '_' and '-'. "
            "For the default one, leave it out, and give a client that has none."
        )
    if ancestor is not None:
        if not hasattr(ancestor, "flat_path") or ancestor.is_partial:
            raise TypeError(f"ancestor must be a complete key of Datastore's client, not {ancestor!r:.100}.")
        if namespace is not None and ancestor.namespace != namespace:
            raise ValueError(f"The ancestor is in the namespace {ancestor.namespace!r}, and not in {namespace!r}.")
    return Kind(name=name, client=client, namespace=namespace, ancestor=ancestor)


def take_query(query: Any, client: Any) -> tuple[Kind, str]:
    """Return a query of the client as a kind, and its order.

    Raises:
        ValueError: it cannot be read from a key on: no kind, several orders, DISTINCT ON, or an OR.
    """
    label = f"The query of {query.kind!r} cannot be read in batches"
    orders = [name for name in query.order if name != KEY]
    if not query.kind:
        raise ValueError("A query without a kind cannot be read in batches; iterate over one kind after the other.")
    if query.distinct_on:
        raise ValueError(f"{label}: distinct_on leaves entities out by their order.")
    if len(orders) > 1 or (KEY in query.order and query.order[-1] != KEY):
        raise ValueError(f"{label}: it has the order {', '.join(query.order)}; give it one property, or none.")
    kind = Kind(
        name=query.kind,
        client=client if client is not None else query._client,
        project=query.project,
        namespace=query.namespace,
        ancestor=query.ancestor,
        conditions=tuple(read_filter(list(_flatten(query.filters, label)))),
        projection=tuple(query.projection),
    )
    return kind, orders[0] if orders else KEY


def _flatten(filters: Any, label: str) -> Iterator[Condition]:
    """Return the conditions that must all hold."""
    from google.cloud.datastore.query import And, BaseCompositeFilter, PropertyFilter

    for one in filters:
        if isinstance(one, And):
            yield from _flatten(one.filters, label)
        elif isinstance(one, BaseCompositeFilter):
            raise ValueError(f"{label}: it joins conditions by OR; use IN, or one iteration for each.")
        elif isinstance(one, PropertyFilter):
            yield one.property_name, one.operator, one.value
        else:
            yield tuple(one)


def copy_query(
    query: Any, *, order: Sequence[str], projection: Sequence[str] = (), more: Iterable[Condition] = ()
) -> Any:
    """Return a query for the same entities in another order.

    Args:
        query: a query of the client.
        order: the order.
        projection: what is read of them.
        more: conditions beside those of the query.
    """
    kind, _ = take_query(query, None)
    return kind.make_query((*kind.conditions, *more), order, projection)


def fetch(query: Any, limit: int | None = None) -> list[Any]:
    """Return what a query gives, at once.

    Raises:
        ValueError: Datastore refuses the query for what it is.
        ConfigurationError: Datastore lacks an index for it; says which.
    """
    with refusals(query):
        return list(query.fetch(limit=limit))


def fetch_pages(query: Any) -> Iterator[Any]:
    """Yield all that a query gives, however much that is.

    Firestore's emulator answers in one message what is asked at once, and gRPC takes 4 MiB of it: so it is asked for
    in pages.

    Raises:
        ValueError: Datastore refuses the query for what it is.
        ConfigurationError: Datastore lacks an index for it; says which.
    """
    cursor = None
    while True:
        with refusals(query):
            page = query.fetch(limit=PAGE, start_cursor=cursor)
            found = list(page)
        yield from found
        cursor = page.next_page_token
        if len(found) < PAGE or cursor is None:
            return


@contextmanager
def refusals(query: Any) -> Iterator[None]:
    """Turn what Datastore refuses of a query into errors that say what to do."""
    from google.api_core.exceptions import FailedPrecondition, InvalidArgument

    try:
        yield
    except FailedPrecondition as error:
        raise ConfigurationError(_explain(query, error.message)) from error
    except InvalidArgument as error:
        raise ValueError(f"Datastore cannot answer this query of {query.kind}: {error.message}") from error


def _explain(query: Any, message: str) -> str:
    kind, order = take_query(query, None)
    index = describe_index(
        kind.name, kind.conditions, order, [name for name in kind.projection if name != KEY], kind.ancestor is not None
    )
    said = f"Datastore refuses this query of {kind.name}: {message}"
    if index is None:
        return said
    return (
        f"{said}\nIt needs a composite index. Add this to index.yaml, run `gcloud datastore indexes create index.yaml`"
        f" and wait until the index serves:\n\n{index}\n"
    )
