"""The server's queues: kept in a table, and in memory for whoever asks many times a second.

One server works on a database (guard.py): what another one changed would be seen at the next start only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.models import ServedQueue
from soc_tasks.engine.server import errors, queue_rules
from soc_tasks.engine.server.messages import api, set_micros
from soc_tasks.engine.server.names import Location, QueueName, from_key
from soc_tasks.engine.store.enqueue import EnqueueStore
from soc_tasks.engine.store.rows import QUEUES, TASKS
from soc_tasks.values import QueueOptions

#: Seconds for which the name of a deleted queue cannot be used again: 3 days (client library; quotas say 7).
TOMBSTONE: Final = 3 * 86400.0


class Queues:
    """Keeps queues and their configurations.

    Args:
        store: where their tasks are.
        tombstone: seconds for which a deleted queue's name stays taken.
    """

    def __init__(self, store: EnqueueStore, tombstone: float = TOMBSTONE) -> None:
        self._store = store
        self._tombstone = tombstone
        self._lock = threading.Lock()
        #: By short form. Replaced as a whole, so that readers need no lock.
        self._kept: dict[str, Any] = {}
        self._options: dict[str, QueueOptions] = {}
        self._deleted: dict[str, int] = {}

    def load(self) -> None:
        """Read the table."""
        from google.protobuf import json_format

        kept, options = {}, {}
        for row in ServedQueue.objects.using(self._store.alias).all():
            if row.deleted is not None:
                self._deleted[row.name] = row.deleted
                continue
            queue = json_format.Parse(row.configuration, api().Queue(), ignore_unknown_fields=True)
            kept[row.name], options[row.name] = queue, queue_rules.read_options(row.name, queue)
        self._kept, self._options = kept, options

    def options(self) -> Mapping[str, QueueOptions]:
        """Return what the engine must know of the queues."""
        return self._options

    def find(self, key: str) -> Any:
        """Return the configuration of a queue by its short form, or None."""
        return self._kept.get(key)

    def locations(self) -> set[Location]:
        """Return where there are queues."""
        return {from_key(key).parent for key in self._kept}

    def check(self, name: QueueName, absent: Callable[[], errors.ApiError] = errors.no_queue) -> None:
        """Raise what `absent` makes unless there is such a queue."""
        if name.key not in self._kept:
            raise absent()

    def get(self, name: QueueName) -> Any:
        """Return a queue as it is now.

        Raises:
            ApiError: there is none.
        """
        self.check(name)
        return self._show(name.key, *self._states(name.key).get(name.key, (False, None)))

    def find_many(self, parent: Location, *, after: str, limit: int, state: int | None) -> list[Any]:
        """Return up to `limit` queues of a location by name, those that come after the short form `after`."""
        found = []
        states = self._states()
        for key in sorted(key for key in tuple(self._kept) if key.startswith(parent.prefix) and key > after):
            queue = self._show(key, *states.get(key, (False, None)))
            if state is None or queue.state == state:
                found.append(queue)
            if len(found) == limit:
                break
        return found

    def create(self, name: QueueName, given: Any) -> None:
        """Make a queue.

        Raises:
            ApiError: it exists, existed a short while ago, or cannot be like this.
        """
        with self._lock:
            if name.key in self._kept:
                raise errors.queue_exists()
            self._check_name_is_free(name)
            self._write(name.key, queue_rules.make(given), new=True)

    def update(self, name: QueueName, given: Any, paths: list[str]) -> None:
        """Change a queue, or make it.

        Raises:
            ApiError: it existed a short while ago, or cannot be like this.
        """
        with self._lock:
            queue = self._kept.get(name.key)
            if queue is None:
                self._check_name_is_free(name)
                self._write(name.key, queue_rules.make(given), new=True)
            else:
                self._write(name.key, queue_rules.change(queue, given, paths), new=False)
        self._store.wake_workers()

    def delete(self, name: QueueName) -> None:
        """Delete a queue with its tasks.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            self.check(name, errors.not_found)
            now = self._store.clock.now()
            with self._store.writing() as cursor:
                ServedQueue.objects.using(self._store.alias).filter(name=name.key).update(deleted=now)
                cursor.execute(f"DELETE FROM {TASKS} WHERE queue = %s", (name.key,))
                cursor.execute(f"DELETE FROM {QUEUES} WHERE name = %s", (name.key,))
            self._deleted[name.key] = now
            self._kept = {key: queue for key, queue in self._kept.items() if key != name.key}
            self._options = {key: options for key, options in self._options.items() if key != name.key}

    def _check_name_is_free(self, name: QueueName) -> None:
        deleted = self._deleted.get(name.key)
        if deleted is not None and self._store.clock.now() - deleted < self._tombstone * SECOND:
            raise errors.queue_existed()

    def _write(self, key: str, queue: Any, *, new: bool) -> None:
        from google.protobuf import json_format

        queue.name = str(from_key(key))
        text = json_format.MessageToJson(queue, indent=None)
        rows = ServedQueue.objects.using(self._store.alias)
        # Beyond what the engine can do: found before anything is written.
        options = queue_rules.read_options(key, queue)
        with self._store.writing():
            values: dict[str, Any] = {"configuration": text, "deleted": None}
            if new:
                rows.update_or_create(name=key, defaults={**values, "created": self._store.clock.now()})
            else:
                rows.filter(name=key).update(**values)
        self._kept, self._options = {**self._kept, key: queue}, {**self._options, key: options}
        self._deleted.pop(key, None)

    def _states(self, key: str | None = None) -> dict[str, tuple[bool, int | None]]:
        """Return by short form whether a queue is paused, and when it was purged."""
        where, given = ("", ()) if key is None else (" WHERE name = %s", (key,))
        rows = self._store.select(f"SELECT name, paused, purged FROM {QUEUES}{where}", given)
        return {name: (bool(paused), purged) for name, paused, purged in rows}

    def _show(self, key: str, paused: bool, purged: int | None) -> Any:
        queue = api().Queue()
        queue.CopyFrom(self._kept[key])
        queue.state = api().Queue.PAUSED if paused else api().Queue.RUNNING
        if purged:
            set_micros(queue.purge_time, purged)
        return queue
