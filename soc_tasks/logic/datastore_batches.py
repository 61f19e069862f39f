"""Batches of a Datastore kind: `getBatchOfData` by Datastore's key, or by one property of its entities."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from soc_tasks.logic.datastore_filters import Condition, check_posted_filter, describe_index, join, read_filter
from soc_tasks.logic.datastore_keys import (
    KEY,
    NOTHING,
    Position,
    check_value,
    decode_position,
    encode_position,
    get_property,
    rank_value,
)
from soc_tasks.logic.datastore_queries import (
    copy_query,
    fetch,
    fetch_pages,
    get_client,
    is_query,
    make_kind,
    refusals,
    take_query,
)
from soc_tasks.logic.datastore_ranges import check_ranges, divide
from soc_tasks.logic.datastore_seeks import Order, Seek, plan_seeks
from soc_tasks.logic.full_logic import CountedRanges, FullLogic, KeyRange, check_batch_size, take_start_key

#: How often a batch is read anew because an entity changed while its place was looked up.
TRIES: Final = 5

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DatastoreLogic(FullLogic):
    """Batches of a Datastore kind's entities, each entity once, in the order of their keys or of one property.

    Entities without the property, or with an unindexed one, are not in its index, and are left out.

    Args:
        source: the name of a kind, or a query of Datastore's client: its kind, namespace, ancestor, filters, projection
            and order (of one property at most) are kept.
        client: a client to read with; None: the query's, or this process's own.
        namespace: a namespace; None: the client's.
        ancestor: a key; only entities under it are read.
        order_field: a property, "-" before it for descending; None: the key.
        batch_size: entities in a batch, 1 to 1,000.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the query cannot be read from a key on, or order_field, namespace or batch_size is none.
    """

    in_datastore = True
    key_order = KEY

    def __init__(
        self,
        source: Any,
        client: Any = None,
        namespace: str | None = None,
        ancestor: Any = None,
        order_field: str | None = None,
        batch_size: int = 100,
    ) -> None:
        """Check the source, so that a mistake shows where it is made; nothing is connected to yet."""
        own = KEY
        if not is_query(source):
            self._kind = make_kind(source, client, namespace, ancestor)
        elif namespace is not None or ancestor is not None:
            raise TypeError("A query has its own namespace and ancestor; set them there.")
        else:
            self._kind, own = take_query(source, client)
            if order_field is not None and own not in (KEY, order_field):
                raise ValueError(f"The query is in the order of {own}, and order_field is {order_field!r}; give one.")
        self.order_field = str(Order.parse(own if order_field is None else order_field))
        self.batch_size = check_batch_size(batch_size)

    def __repr__(self) -> str:
        """Name the kind and the order."""
        return f"DatastoreLogic({self.kind!r}, order_field={self.order_field!r}, batch_size={self.batch_size})"

    @property
    def kind(self) -> str:
        """Return the name of the kind."""
        return self._kind.name

    @property
    def client(self) -> Any:
        """Return the client to read with."""
        return get_client(self._kind.client)

    @property
    def query(self) -> Any:
        """Return a query of Datastore's client for all that is read, in no order."""
        return self._kind.make_query(self._kind.conditions, (), self._kind.projection)

    @property
    def using(self) -> None:
        """Return None: no alias of DATABASES is read."""
        return None

    def on(self, using: str) -> DatastoreLogic:
        """Refuse an alias.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"using={using!r} is an alias of DATABASES, and {self!r} reads Datastore; give it a client.")

    def getBatchOfData(
        self,
        filter: Any = None,
        start_key: str | None = None,
        batch_size: int | None = None,
        *,
        order: str | None = None,
        end_key: str | None = None,
    ) -> tuple[list[Any], str | None]:
        """Return one batch of entities, as Datastore's client gives them, and the key of the next.

        Args:
            filter: a dict of `property` or `property__lookup` (gt, gte, lt, lte, ne, in, not_in) to a value, or a list
                of `(property, operator, value)`; a str here is the start_key.
            start_key: the key of the first entity; None begins at the first there is. Where that entity is gone, the
                batch begins with the one that followed it.
            batch_size: entities at most; None takes the logic's.
            order: another order for this call; keys belong to their order.
            end_key: the key before which to stop; None goes to the end.

        Returns:
            The entities, and the key of the first entity of the next batch or None.

        Raises:
            ValueError: a key is not one of this kind and order, an argument is out of bounds, the property holds lists,
                or Datastore has no such queries.
            ConfigurationError: Datastore lacks an index; the message has it as index.yaml.
        """
        filter, start_key = take_start_key(filter, start_key)
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        ordering = Order.parse(self.order_field if order is None else order)
        conditions = self._restrict(filter)
        start = None if start_key is None else decode_position(self.kind, ordering.name, start_key)
        end = None if end_key is None else decode_position(self.kind, ordering.name, end_key)
        seeks = plan_seeks(ordering, conditions, start, end, self._kind.make_key)
        for _ in range(TRIES):
            # One entity more tells the next key.
            rows = self._read(ordering, seeks, size + 1)
            if len(rows) <= size:
                return [self._finish(ordering, *row) for row in rows], None
            position = self._find_position(ordering, *rows[size])
            if position is not None:
                if not ordering.by_key and not self._is_tied(ordering, *rows[size - 1], position):
                    # Nothing with this value was before: the next batch needs no query for the rest of its ties.
                    position = Position(position.value)
                key = encode_position(self.kind, ordering.name, position)
                return [self._finish(ordering, *row) for row in rows[:size]], key
        raise RuntimeError(f"Entities of {self.kind} change in {ordering.name!r} faster than they can be read.")

    def count(self, filter: Any = None) -> int | None:
        """Return how many entities there are; costs a read for each 1,000 of them.

        Args:
            filter: as for `getBatchOfData`.
        """
        from google.api_core.exceptions import MethodNotImplemented

        query = self._kind.make_query(self._restrict(filter))
        try:
            with refusals(query):
                return int(next(iter(self.client.aggregation_query(query).count().fetch()))[0].value)
        except MethodNotImplemented:
            # Datastore's emulator.
            return sum(1 for _ in fetch_pages(copy_query(query, order=(), projection=(KEY,))))

    def in_order(self, filter: Any = None, *, order: str | None = None) -> Any:
        """Return a query of Datastore's client for the entities as a whole, in the order of the property or key.

        Args:
            filter: as for `getBatchOfData`.
            order: another order than the logic's.
        """
        return self._kind.make_query(self._restrict(filter), (str(Order.parse(order or self.order_field)),))

    def get_key(self, entity: Any, *, order: str | None = None) -> str:
        """Return the key at which a batch begins with `entity`.

        Args:
            entity: an entity of the kind, the property as Datastore has it.
            order: another order than the logic's.

        Raises:
            ValueError: the entity has no place in this order.
        """
        ordering = Order.parse(order or self.order_field)
        position = self._find_position(ordering, entity, None)
        if position is None:
            raise ValueError(f"{entity.key!r} is gone, or has changed in {ordering.name!r}.")
        return encode_position(self.kind, ordering.name, position)

    def get_key_at(self, value: Any, *, order: str | None = None) -> str:
        """Return the key at which the entities with this value begin, whether there are any.

        Args:
            value: a value of the property; in the order of keys a Datastore key, or an id or a name.
            order: another order than the logic's.

        Raises:
            TypeError, ValueError: it is no such value.
        """
        name = Order.parse(order or self.order_field).name
        if name != KEY:
            return encode_position(self.kind, name, Position(check_value(value)))
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            value = self._kind.make_key((self.kind, value))
        if not hasattr(value, "flat_path"):
            raise TypeError(f"{value!r:.100} is no key of Datastore, no id and no name.")
        return encode_position(self.kind, name, Position(path=value.flat_path))

    def check_filter(self, given: Any) -> dict[str, Any]:
        """Return an untrusted filter as one that is safe for `getBatchOfData`.

        Args:
            given: what was posted.

        Raises:
            ValueError: it names anything but plain properties and the known lookups, or a value cannot be compared.
        """
        return check_posted_filter(self.kind, given)

    def join_filters(self, ours: Any, posted: dict[str, Any]) -> list[Condition]:
        """Return the conditions of both."""
        return join(ours, posted)

    def missing_index(self, order: str | None = None) -> None:
        """Return None, once the order is one: which indexes there are, Datastore tells when it is asked."""
        Order.parse(order or self.order_field)

    def needed_index(self, filter: Any = None, *, order: str | None = None) -> str | None:
        """Return the composite index that batches need, as the text of index.yaml; None where they need none.

        Args:
            filter: as for `getBatchOfData`.
            order: another order than the logic's.
        """
        kind = self._kind
        projection = [name for name in kind.projection if name != KEY]
        conditions = self._restrict(filter)
        order = str(Order.parse(order or self.order_field))
        return describe_index(kind.name, conditions, order, projection, kind.ancestor is not None)

    def find_key_ranges(
        self,
        shard_count: int,
        *,
        filter: Any = None,
        order: str | None = None,
        getter: Callable[[Any, int], Any] | None = None,
    ) -> list[KeyRange]:
        """Return the ranges of keys of at most so many shards.

        Args:
            shard_count: how many shards, at most; a getter of one's own may return more.
            filter: narrows the logic.
            order: another order than the logic's; one that ascends.
            getter: `(query, shard_count)` to ranges of Datastore's keys, or of the property's values.

        Raises:
            ValueError: the ranges overlap, leave a gap or leave entities out.
            TypeError: the getter returned something else than ranges.
        """
        if getter is None and shard_count == 1:
            return [(None, None)]
        query = self.in_order(filter, order=order)
        given = (getter or divide)(query, shard_count)
        keys: list[KeyRange] = [
            tuple(None if bound is None else self.get_key_at(bound, order=order) for bound in pair)  # type: ignore[misc]
            for pair in check_ranges(query, given)
        ]
        return given.like(keys) if getter is None and isinstance(given, CountedRanges) else keys

    def _restrict(self, filter: Any) -> list[Condition]:
        return [*self._kind.conditions, *read_filter(filter)]

    def _read(self, order: Order, seeks: list[Seek], limit: int) -> list[tuple[Any, Seek]]:
        """Return the first entities of all seeks in turn, each with the one that found it.

        Raises:
            ValueError: an entity would come more than once.
        """
        rows: list[tuple[Any, Seek]] = []
        for seek in seeks:
            query = self._kind.make_query(seek.conditions, seek.order, self._project(order, seek))
            rows += [(entity, seek) for entity in fetch(query, limit - len(rows))]
            if len(rows) >= limit:
                break
        if self._kind.projection and any(one.key == other.key for (one, _), (other, _) in pairwise(rows)):
            raise ValueError(
                f"A projected property of {self.kind} holds lists: Datastore gives such an entity once for each value. "
                "Leave the property out of the projection."
            )
        if not order.by_key and any(isinstance(get_property(entity, order.name), list) for entity, _ in rows):
            raise ValueError(
                f"{self.kind} cannot be read in the order of {order.name!r}, which holds lists: Datastore has such an "
                "entity in several places."
            )
        return rows

    def _project(self, order: Order, seek: Seek) -> tuple[str, ...]:
        """Return what a query reads of each entity."""
        projection = self._kind.projection
        if not projection or order.by_key:
            return projection
        if seek.ties is None:
            return tuple(dict.fromkeys(name for name in (*projection, order.name) if name != KEY))
        # Datastore does not project what a condition names; it is put there afterwards.
        return tuple(name for name in projection if name != order.name) or (KEY,)

    def _finish(self, order: Order, entity: Any, seek: Seek) -> Any:
        """Return an entity as the projection has it."""
        projection = self._kind.projection
        if not projection or order.by_key:
            return entity
        if order.name not in projection:
            entity.pop(order.name, None)
        elif seek.ties is not None:
            entity[order.name] = as_projected(seek.ties.value)
        return entity

    def _is_tied(self, order: Order, entity: Any, seek: Seek, position: Position) -> bool:
        """Tell whether an entity has the value of a position, or may have."""
        value = get_property(entity, order.name) if seek.ties is None else seek.ties.value
        return rank_value(as_projected(value)) == rank_value(as_projected(position.value))

    def _find_position(self, order: Order, entity: Any, seek: Seek | None) -> Position | None:
        """Return the place of an entity; None if it has changed since it was read."""
        path = entity.key.flat_path
        if order.by_key:
            return Position(path=path)
        if seek is not None and seek.ties is not None:
            return Position(seek.ties.value, path)
        value = get_property(entity, order.name)
        if not self._kind.projection:
            if value is NOTHING:
                raise ValueError(f"{entity.key!r} has no {order.name!r}.")
            return Position(value, path)
        # A projection gives moments as numbers, and bytes as text: only the entity itself tells.
        whole = self.client.get(entity.key)
        found = NOTHING if whole is None else get_property(whole, order.name)
        if found is NOTHING or (
            value is not NOTHING and rank_value(as_projected(found)) != rank_value(as_projected(value))
        ):
            return None
        return Position(found, path)


def as_projected(value: Any) -> Any:
    """Return a value as a projection gives it: as its index holds it."""
    if isinstance(value, datetime):
        return ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH) // timedelta(
            microseconds=1
        )
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value
