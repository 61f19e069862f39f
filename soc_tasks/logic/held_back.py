"""What a dry run holds back: transactions, mails, and tasks. Files, HTTP and other processes are out of its reach."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from django.conf import settings
from django.core import mail, signals
from django.db import Error, close_old_connections, connections, transaction

from soc_tasks.backends.base import BaseBackend
from soc_tasks.backends.memory import MemoryBackend, Pending
from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.calls import describe
from soc_tasks.logic.statements import TransactionEndedError, Watch

_LOCMEM: Final = "django.core.mail.backends.locmem.EmailBackend"


class HoldingBackend(MemoryBackend):
    """Takes tasks as the site's own backend would, and runs none.

    Args:
        real: the site's backend.
    """

    def __init__(self, real: BaseBackend) -> None:
        super().__init__()
        self.real = real

    @property
    def supports_routing(self) -> bool:  # type: ignore[override] # as that of another backend
        """Tell whether the site's backend routes."""
        return self.real.supports_routing

    def shares_transaction(self, alias: str) -> bool:
        """Tell whether a task of the site's backend commits with a transaction of `alias`."""
        return self.real.shares_transaction(alias)

    def take(self) -> list[Any]:
        """Return the tasks that would be queued by now, and forget them; their names stay taken."""
        self.collect()
        taken, self.tasks = self.tasks, []
        return taken


@contextmanager
def _deprecations_ignored() -> Iterator[None]:
    """Which of Django's settings the site uses is the site's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


@contextmanager
def mails_held_back() -> Iterator[list[Any]]:
    """Keep mails in a list, which is given, in place of sending them."""
    name = "MAILERS" if hasattr(settings, "MAILERS") else "EMAIL_BACKEND"
    with _deprecations_ignored():
        before = getattr(settings, name)
        setattr(settings, name, {alias: {"BACKEND": _LOCMEM} for alias in before} if name == "MAILERS" else _LOCMEM)
    outbox: Any = getattr(mail, "outbox", None)
    held: list[Any] = []
    mail.outbox = held
    try:
        yield held
    finally:
        with _deprecations_ignored():
            setattr(settings, name, before)
        if outbox is not None:
            mail.outbox = outbox
        else:
            del mail.outbox


@contextmanager
def connections_kept() -> Iterator[None]:
    """Have requests within the block leave this thread's connections, and the transactions in them, as they are."""
    both = (signals.request_started, signals.request_finished)
    # Those that a block around this one has disconnected stay so.
    ours = [signal for signal in both if signal.disconnect(close_old_connections)]
    try:
        yield
    finally:
        for signal in ours:
            signal.connect(close_old_connections)


class Transactions:
    """The transactions of one batch.

    Attributes:
        hooks: what `transaction.on_commit` was given, by name; it is not run.
    """

    def __init__(self, before: dict[str, int]) -> None:
        self._before = before
        self.hooks: list[str] = []

    def note_hooks(self) -> None:
        """Take down what waits for the commit that does not come."""
        for alias, number in self._before.items():
            connection: Any = connections[alias]  # run_on_commit is not in the stubs as it is
            for _, hook, _ in connection.run_on_commit[number:]:
                if not isinstance(hook, Pending):
                    self.hooks.append(describe(hook))


@contextmanager
def rolled_back(watch: Watch) -> Iterator[Transactions]:
    """Open a transaction on every alias for the block, and roll all of them back.

    Args:
        watch: looks at what is done in them.

    Raises:
        ConfigurationError: a database cannot be reached.
        TransactionEndedError: the block ended one of them by itself, so that it cannot be rolled back.
    """
    savepoints: dict[str, Any] = {}
    before: dict[str, int] = {}
    with ExitStack() as stack:
        for alias in connections:
            connection: Any = connections[alias]
            block: Any = transaction.atomic(using=alias)
            # As Django's own tests have it: in such a block atomic(durable=True) is allowed, as it is without one.
            block._from_testcase = True
            try:
                stack.enter_context(block)
                # Gone when the transaction is.
                savepoints[alias] = connection.savepoint()
            except Error as error:
                raise ConfigurationError(
                    f"A dry run opens a transaction on every database, and cannot on {alias!r}: {error}"
                ) from error
            before[alias] = len(connection.run_on_commit)
            stack.enter_context(connection.execute_wrapper(watch))
        try:
            yield Transactions(before)
        finally:
            ended = [alias for alias, savepoint in savepoints.items() if not _roll_back(alias, savepoint)]
            if ended:
                raise TransactionEndedError(
                    f"What was done on {', '.join(map(repr, ended))} could not be rolled back: the transaction, or the "
                    "connection, was ended in between. If that was by a commit, what came before it IS WRITTEN. Look "
                    "for commit(), executescript() and close() on a connection."
                )


def _roll_back(alias: str, savepoint: Any) -> bool:
    """Have a transaction rolled back; return False where it is not there any more."""
    connection: Any = connections[alias]
    if connection.closed_in_transaction:
        # The database has rolled back.
        return True
    # Else a statement that failed would be in the way.
    connection.set_rollback(False)
    try:
        if savepoint is not None:
            connection.savepoint_rollback(savepoint)
    except Error:
        return False
    finally:
        connection.set_rollback(True)
    return True
