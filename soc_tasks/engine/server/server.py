"""The server: the API by gRPC, a worker that dispatches, and the keys of tokens, in one process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, cast

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from soc_tasks.engine.server.batches import BatchMethods
from soc_tasks.engine.server.dispatch import ServedDispatcher
from soc_tasks.engine.server.guard import enter
from soc_tasks.engine.server.keys import KeyServer
from soc_tasks.engine.server.messages import api
from soc_tasks.engine.server.names import Location, QueueName
from soc_tasks.engine.server.queue_methods import QueueMethods
from soc_tasks.engine.server.queues import TOMBSTONE, Queues
from soc_tasks.engine.server.rpc import make_handlers
from soc_tasks.engine.server.task_methods import TaskMethods
from soc_tasks.engine.server.tokens import Tokens
from soc_tasks.engine.store import make_store
from soc_tasks.engine.store.enqueue import EnqueueStore
from soc_tasks.engine.store.leases import ServedElsewhereError
from soc_tasks.engine.worker import Worker
from soc_tasks.errors import ConfigurationError

logger = logging.getLogger("soc_tasks.engine")

#: Threads that answer RPCs.
ANSWERING: Final = 16
#: Bytes of a request: a whole batch of the largest tasks.
MOST_BYTES: Final = 128 * 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a server is told.

    Args:
        alias: the database.
        host: address to listen on.
        port, keys_port: ports of the API and of the keys; 0: any that is free.
        threads: how many tasks may run at one time.
        services: base URLs of App Engine services by name.
        queues: queues that are made if they are not there.
        locations: locations that are there without queues.
        key: file of the key that signs tokens; None: one for this run only.
        issuer: who tokens say they come from; None: the address of the keys.
        queue_tombstone: seconds for which a deleted queue's name stays taken.
        http_tokens: whether tokens may go to http:// URLs of any host.
        grace: seconds that attempts get to end when the server is stopped.
        upkeep: whether the database is a site's, whose upkeep its workers do.
        until_eof: whether to stop when standard input ends.
        after: host and port where somebody has to listen before anything is attempted; None: nothing is waited for.
    """

    alias: str
    host: str = "127.0.0.1"
    port: int = 0
    keys_port: int = 0
    threads: int = 32
    services: Mapping[str, str] = field(default_factory=dict)
    queues: Sequence[QueueName] = ()
    locations: frozenset[Location] = frozenset()
    key: str | None = None
    issuer: str | None = None
    queue_tombstone: float = TOMBSTONE
    http_tokens: bool = False
    grace: float = 10.0
    upkeep: bool = False
    until_eof: bool = False
    after: tuple[str, int] | None = None


class Server:
    """Serves the API on one database.

    Args:
        options: what it is told.

    Raises:
        ConfigurationError: it cannot listen, or something is not installed.
    """

    def __init__(self, options: Options) -> None:
        api()
        self._options = options
        self.store = cast(EnqueueStore, make_store(options.alias))
        self.queues = Queues(self.store, options.queue_tombstone)
        self.store.serves, self.store.options, self.store.upkeep = True, self.queues.options, options.upkeep
        self._connections: dict[int, BaseDatabaseWrapper] = {}
        self._keys: KeyServer | None = None
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._grpc: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._failed: BaseException | None = None
        #: Set when the worker has ended, for whatever reason.
        self.ended = threading.Event()
        self.port = self.keys_port = 0

    def start(self, stop: threading.Event | None = None) -> bool:
        """Begin to answer and to dispatch; return when both are under way.

        Args:
            stop: ends the waiting for a server that may be dead.

        Returns:
            False where it was stopped before it began.

        Raises:
            ConfigurationError: it cannot listen, or another server works on the database.
        """
        options = self._options
        try:
            self._keys = KeyServer(options.host, options.keys_port)
        except OSError as error:
            raise ConfigurationError(f"It cannot listen on {options.host}:{options.keys_port}: {error}") from error
        try:
            return self._start(options, self._keys, stop or threading.Event())
        except BaseException:
            self.stop(0.0)
            raise

    def _start(self, options: Options, keys: KeyServer, stop: threading.Event) -> bool:
        self.keys_port = keys.port
        base = f"http://{show_host(options.host)}:{keys.port}"
        tokens = Tokens(options.issuer or base, options.key)
        dispatcher = ServedDispatcher(self.queues, self.store.clock, tokens, options.services, options.after)
        self._listen(options, dispatcher)
        ready = threading.Event()
        worker = Worker(
            options.alias,
            threads=options.threads,
            dispatch=dispatcher,
            grace=options.grace,
            ready=ready.set,
            store=self.store,
        )
        if not enter(self.store, worker.join, stop):
            return False
        self._worker = worker
        # Nobody else changes them from here on.
        self._load_queues(options)
        keys.start(tokens, base)
        self._thread = threading.Thread(target=self._work, args=(worker, ready), name="soc_tasks-engine")
        self._thread.start()
        ready.wait()
        if self._failed is not None:
            raise self._failed
        self._grpc.start()
        return True

    def _load_queues(self, options: Options) -> None:
        self.queues.load()
        for name in options.queues:
            if self.queues.find(name.key) is None:
                self.queues.create(name, api().Queue())

    def _listen(self, options: Options, dispatcher: ServedDispatcher) -> None:
        import grpc

        tasks = TaskMethods(self.store, self.queues, dispatcher, http_tokens=options.http_tokens)
        objects = [
            tasks,
            QueueMethods(self.store, self.queues, {*options.locations, *(name.parent for name in options.queues)}),
            BatchMethods(self.store, self.queues, tasks),
        ]
        self._pool = ThreadPoolExecutor(ANSWERING, thread_name_prefix="soc_tasks-api")
        self._grpc = grpc.server(
            self._pool,
            handlers=make_handlers(options.alias, objects, self._note_connection),
            # A port that is taken is an error, not shared.
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MOST_BYTES)],
        )
        try:
            self.port = self._grpc.add_insecure_port(f"{show_host(options.host)}:{options.port}")
        except RuntimeError as error:
            raise ConfigurationError(f"It cannot listen on {options.host}:{options.port}: {error}") from error

    def _work(self, worker: Worker, ready: threading.Event) -> None:
        try:
            worker.run()
        except ServedElsewhereError as error:
            self._failed = error
            logger.error("this server was silent for longer than its lease, and another one has taken its place")
        except BaseException as error:
            self._failed = error
            logger.exception("the worker of the server failed")
        finally:
            connections.close_all()
            self.ended.set()
            ready.set()

    def _note_connection(self) -> None:
        """Remember the connection of this thread, which cannot close it at its end."""
        connection = connections[self._options.alias]
        if id(connection) not in self._connections:
            connection.inc_thread_sharing()
            self._connections[id(connection)] = connection

    def stop(self, grace: float | None = None) -> None:
        """Answer nothing more, and end when attempts have ended or their time is over; what is left comes back.

        Args:
            grace: seconds for RPCs that are under way.
        """
        if self._grpc is not None:
            self._grpc.stop(1.0 if grace is None else grace).wait()
        if self._worker is not None:
            self._worker.stop()
        if self._thread is not None:
            self._thread.join()
        elif self._worker is not None:
            self._worker.leave()
        if self._pool is not None:
            self._pool.shutdown()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._keys is not None:
            self._keys.stop()
            self._keys = None


def show_host(host: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
