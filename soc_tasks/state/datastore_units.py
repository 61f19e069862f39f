"""One transaction of a Datastore client: what it has read and what it will write, for those who look again.

Datastore shows nobody what a transaction has written, not even the transaction itself, and takes all writes at its
commit. So they wait here, together with what follows the commit, and can be undone in part. Reads lock, or are judged
at the commit, as the database is set up; whoever is undone for others to go on (ABORTED) may begin again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import OperationalError

from soc_tasks.state.undone import TransactionTooLargeError, UndoneError

logger = logging.getLogger("soc_tasks")

T = TypeVar("T")

#: What Datastore takes in one commit, at most. Some have no limit of entities any more; all have that of bytes.
MOST_ENTITIES: Final = 500
MOST_BYTES: Final = 10 * 2**20
#: Keys of one lookup.
MOST_KEYS: Final = 1000
#: How often what was undone is done again, and seconds before the second time, at most; doubled each time.
TRIES: Final = 8
FIRST_PAUSE: Final = 0.02

_ATTRIBUTE: Final = "soc_tasks_unit"
_local = threading.local()


class Unit:
    """What a transaction has read, will write, and what follows its commit.

    Args:
        client: the client that has it open.
        transaction: the transaction.
        is_ours: whether we have opened it: then its limits are checked, and its errors are ours.
    """

    def __init__(self, client: Any, transaction: Any, *, is_ours: bool) -> None:
        self.client = client
        self.transaction = transaction
        self.is_ours = is_ours
        self.hooks: list[Callable[[], Any]] = []
        #: Under what key this transaction keeps its tasks, and how many it has.
        self.outbox: str = ""
        self.held = 0
        self._entities: dict[Any, Any] = {}
        self._changes: dict[Any, str] = {}

    def load(self, keys: Sequence[Any]) -> list[Any]:
        """Return entities as this transaction has them, or None for each that is not there."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._entities]
        with translated():
            for first in range(0, len(unknown), MOST_KEYS):
                wanted = unknown[first : first + MOST_KEYS]
                found = {entity.key: entity for entity in self.client.get_multi(wanted, transaction=self.transaction)}
                self._entities.update((key, found.get(key)) for key in wanted)
        return [self._entities[key] for key in keys]

    def get(self, key: Any) -> Any:
        """Return one entity as this transaction has it, or None."""
        return self.load([key])[0]

    def peek(self, keys: Sequence[Any]) -> dict[Any, Any]:
        """Return those entities that this transaction has changed; None: deleted."""
        return {key: self._entities[key] for key in keys if key in self._changes}

    def find_changed(self, kind: str) -> list[Any]:
        """Return the entities of a kind that this transaction writes."""
        return [self._entities[key] for key, how in self._changes.items() if key.kind == kind and how != "delete"]

    def put(self, entity: Any, *, insert: bool = False) -> None:
        """Write an entity; `insert` demands that there is none of its key."""
        self._entities[entity.key] = entity
        if self._changes.get(entity.key) != "insert":
            self._changes[entity.key] = "insert" if insert else "upsert"

    def delete(self, keys: Sequence[Any]) -> None:
        """Delete entities."""
        for key in keys:
            self._entities[key] = None
            if self._changes.get(key) == "insert":
                del self._changes[key]
            else:
                self._changes[key] = "delete"

    def mark(self) -> tuple[Any, ...]:
        """Return where the transaction stands."""
        transaction = self.transaction
        return (
            dict(self._entities),
            dict(self._changes),
            list(self.hooks),
            len(transaction.mutations),
            len(transaction._partial_key_entities),
        )

    def undo_to(self, mark: tuple[Any, ...]) -> None:
        """Drop what was written since, whoever wrote it."""
        entities, changes, hooks, mutations, partial = mark
        self._entities, self._changes = entities, changes
        self.hooks[:] = hooks
        del self.transaction.mutations[mutations:]
        del self.transaction._partial_key_entities[partial:]

    def flush(self) -> None:
        """Hand what is to be written to the client's transaction.

        Raises:
            TransactionTooLargeError: it is more than a commit takes.
        """
        for key, how in self._changes.items():
            if how == "insert":
                self.transaction.mutations.append(_insert(self._entities[key]))
            elif how == "upsert":
                self.transaction.put(self._entities[key])
            else:
                self.transaction.delete(key)
        self._changes = {}
        if self.is_ours:
            _check_limits(self.transaction.mutations)

    def run_hooks(self) -> None:
        """Do what follows the commit; nothing of it can fail what has committed."""
        hooks, self.hooks = self.hooks, []
        for hook in hooks:
            try:
                hook()
            except Exception:
                logger.exception("what follows the commit of a transaction on Datastore failed: %r", hook)


def _insert(entity: Any) -> Any:
    """Return the mutation that writes an entity whose key is not taken; the client has none."""
    from google.cloud.datastore.helpers import entity_to_protobuf
    from google.cloud.datastore_v1.types import Mutation

    return Mutation(insert=entity_to_protobuf(entity))


def _check_limits(mutations: Sequence[Any]) -> None:
    if len(mutations) > MOST_ENTITIES:
        raise TransactionTooLargeError(
            f"This transaction would write {len(mutations):,} entities, and Datastore takes at most {MOST_ENTITIES} in "
            "one commit, soc_tasks' own among them. Set a smaller batch_size, write fewer entities for each, or use "
            "fewer shards."
        )
    size = sum(mutation._pb.ByteSize() for mutation in mutations)
    if size > MOST_BYTES:
        raise TransactionTooLargeError(
            f"This transaction would write {size:,} bytes, and Datastore takes at most {MOST_BYTES:,} in one commit. "
            "Set a smaller batch_size, or write less for each entity."
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of Datastore into those by which callers tell what to do.

    Raises:
        UndoneError: others were in the way.
        OperationalError: Datastore cannot be reached, or refuses.
    """
    from google.api_core.exceptions import Aborted, AlreadyExists, GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (Aborted, AlreadyExists) as error:
        raise UndoneError(f"Datastore undid the transaction: {error}") from error
    except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
        raise OperationalError(f"Datastore: {error}") from error


def find_open(client: Any) -> Unit | None:
    """Return the transaction that this thread has open on a client, or None."""
    transaction = client.current_transaction
    if transaction is None or transaction._status in (transaction._ABORTED, transaction._FINISHED):
        return None
    unit: Unit | None = vars(transaction).get(_ATTRIBUTE)
    return unit if unit is not None else _attach(Unit(client, transaction, is_ours=False))


def _attach(unit: Unit) -> Unit:
    """Have a transaction take its unit along: what waits is written with its commit, and what follows comes after."""
    transaction = unit.transaction
    commit, rollback = transaction.commit, transaction.rollback
    find_units().append(unit)

    def commit_all(*args: Any, **kwargs: Any) -> None:
        try:
            unit.flush()
            if unit.is_ours:
                with translated():
                    commit(*args, **kwargs)
            else:
                commit(*args, **kwargs)
        finally:
            _forget(unit)
        unit.run_hooks()

    def roll_back(*args: Any, **kwargs: Any) -> None:
        _forget(unit)
        rollback(*args, **kwargs)

    transaction.commit, transaction.rollback = commit_all, roll_back
    setattr(transaction, _ATTRIBUTE, unit)
    return unit


def find_units() -> list[Unit]:
    """Return the open transactions of this thread that were looked at."""
    if not hasattr(_local, "units"):
        _local.units = []
    units: list[Unit] = _local.units
    return units


def _forget(unit: Unit) -> None:
    if unit in find_units():
        find_units().remove(unit)


def on_commit(client: Any, hook: Callable[[], Any]) -> None:
    """Call `hook` when the open transaction has committed, or now if none is."""
    unit = find_open(client)
    if unit is None:
        hook()
    else:
        unit.hooks.append(hook)


def find_hooks() -> Iterator[Callable[[], Any]]:
    """Yield what waits for the commits of this thread."""
    for unit in find_units():
        yield from unit.hooks


@contextmanager
def atomic(client: Any) -> Iterator[Unit]:
    """Open a transaction, or join the one that this thread has open; an exception undoes what was written in the block.

    Raises:
        UndoneError: Datastore undid it, so that others could go on.
        TransactionTooLargeError: it would write more than a commit takes.
        OperationalError: Datastore cannot be reached, or refuses.
    """
    unit = find_open(client)
    if unit is not None:
        mark = unit.mark()
        try:
            yield unit
        except BaseException:
            unit.undo_to(mark)
            raise
        return
    unit = Unit(client, client.transaction(), is_ours=True)
    with translated():
        unit.transaction.begin()
    _attach(unit)
    client._push_batch(unit.transaction)
    try:
        yield unit
        if unit.transaction._status == unit.transaction._IN_PROGRESS:
            unit.transaction.commit()
    except BaseException as error:
        _give_up(unit)
        if _is_aborted(error):
            # Of the block's own reads.
            raise UndoneError(f"Datastore undid the transaction: {error}") from error
        raise
    finally:
        client._pop_batch()


def _give_up(unit: Unit) -> None:
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    if unit.transaction._status != unit.transaction._IN_PROGRESS:
        return
    try:
        unit.transaction.rollback()
    except (GoogleAPICallError, RetryError) as error:
        # It ends by itself; the reason for giving it up is the one to be told.
        logger.debug("could not roll a transaction on Datastore back: %s", error)


def _is_aborted(error: BaseException) -> bool:
    from google.api_core.exceptions import Aborted

    return isinstance(error, Aborted)


@contextmanager
def outside(client: Any) -> Iterator[None]:
    """Read past the open transaction of this thread: without locks, and by queries that transactions may not make."""
    client._push_batch(None)
    try:
        yield
    finally:
        client._pop_batch()


def run_again(work: Callable[[], T]) -> T:
    """Do `work`, and again where Datastore undid it, after pauses by chance: or the same two would meet again."""
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        try:
            return work()
        except UndoneError:
            time.sleep(pause * random.random())
            pause *= 2
    return work()
