"""A beginning to come back to: the database, the queues and the mails as they were when a run began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.apps import apps
from django.core import mail
from django.db import connections, models, router, transaction
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined] # not in the stubs

from soc_tasks.backends.memory import MemoryBackend


class Beginning:
    """What a run starts from.

    Attributes:
        aliases: the databases that the test may use.
        mails: how many mails were sent before.
    """

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        backend.collect()
        self._tasks, self._names = list(backend.tasks), set(backend.names)
        self.mails = len(_outbox())
        self.aliases = [alias for alias in connections if _is_open(alias)]
        # Where a test case holds a transaction open, a savepoint brings everything back; else the rows are kept.
        self._rows = {alias: _read(alias) for alias in self.aliases if not connections[alias].in_atomic_block}

    @contextmanager
    def run(self) -> Iterator[None]:
        """Have everything as at the beginning, in the block and after it."""
        self._backend.clear()
        self._backend.names.update(self._names)
        try:
            with ExitStack() as stack:
                for alias in self.aliases:
                    if alias not in self._rows:
                        stack.enter_context(_undone(alias))
                yield
        finally:
            for alias, rows in self._rows.items():
                _write(alias, rows)
            self._backend.clear()
            self._backend.tasks.extend(self._tasks)
            self._backend.names.update(self._names)
            del _outbox()[self.mails :]


def find_models(alias: str) -> list[type[models.Model]]:
    """Return the models that have tables of their own on an alias."""
    tables = set(connections[alias].introspection.table_names())
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
        and model._meta.managed
        and model._meta.db_table in tables
        and router.allow_migrate_model(alias, model)
    ]


def _outbox() -> list[Any]:
    # It is there only where Django's test environment is set up.
    outbox: list[Any] = getattr(mail, "outbox", [])
    return outbox


def _is_open(alias: str) -> bool:
    try:
        with connections[alias].cursor():
            return True
    except DatabaseOperationForbidden:
        return False


@contextmanager
def _undone(alias: str) -> Iterator[None]:
    block = transaction.atomic(using=alias)
    # As of a test case: what is in it counts as committed.
    block._from_testcase = True  # type: ignore[attr-defined] # Django's own mark
    with block:
        try:
            yield
        finally:
            transaction.set_rollback(True, using=alias)


Rows = dict[type[models.Model], list[models.Model]]


def _read(alias: str) -> Rows:
    return {model: list(model._base_manager.using(alias).order_by()) for model in find_models(alias)}


def _write(alias: str, rows: Rows) -> None:
    connection = connections[alias]
    with connection.constraint_checks_disabled(), transaction.atomic(using=alias):
        for model in rows:
            model._base_manager.using(alias).all()._raw_delete(alias)
        for model, instances in rows.items():
            # Row by row of each table, parents apart, with the values as they were: no save() and no signal.
            fields = [field for field in model._meta.local_concrete_fields if not field.generated]
            size = max(connection.ops.bulk_batch_size(fields, instances), 1)
            for start in range(0, len(instances), size):
                model._base_manager._insert(  # type: ignore[attr-defined] # what bulk_create calls
                    instances[start : start + size], fields=fields, using=alias, raw=True
                )
