"""The API's methods on tasks."""

from __future__ import annotations

from typing import Any, Final

from soc_tasks.conf import get_settings
from soc_tasks.engine.server import errors
from soc_tasks.engine.server.dispatch import ServedDispatcher
from soc_tasks.engine.server.messages import api
from soc_tasks.engine.server.names import QueueName, make_id, parse_queue, parse_task, was_made
from soc_tasks.engine.server.pages import make_token, page_size, read_token
from soc_tasks.engine.server.queues import Queues
from soc_tasks.engine.server.rows import to_message, to_row
from soc_tasks.engine.server.task_rules import complete
from soc_tasks.engine.store.enqueue import EnqueueStore
from soc_tasks.engine.store.rows import COLUMNS, TASKS, Leased, State
from soc_tasks.errors import TaskAlreadyExistsError

#: Tasks of one page (reference of ListTasks).
MOST_TASKS: Final = 1000
#: Seconds for which RunTask waits for the attempt to begin.
PATIENCE: Final = 5.0

#: Bytes of a page, about, after which it ends early: most clients take 4 MiB at a time.
PAGE_BYTES: Final = 2 * 2**20

_ONE = f"SELECT {COLUMNS}, state FROM {TASKS} WHERE queue = %s AND name = %s AND keyed = 0"
_PAGE = (
    f"SELECT %s, state FROM {TASKS} WHERE queue = %%s AND name > %%s AND keyed = 0 AND state <> {State.ENDED:d}"
    " ORDER BY name LIMIT %%s"
)
_FULL = _PAGE % COLUMNS
# Bodies may be large.
_BASIC = _PAGE % COLUMNS.replace("body", "NULL AS body")
#: Rows that one query of a page with bodies takes.
_FULL_ROWS: Final = 100


class TaskMethods:
    """What clients do with tasks.

    Args:
        store: keeps them.
        queues: keeps their queues.
        dispatcher: tells which of them are under way.
        http_tokens: whether tokens may go to http:// URLs of any host.
    """

    def __init__(
        self, store: EnqueueStore, queues: Queues, dispatcher: ServedDispatcher, *, http_tokens: bool = False
    ) -> None:
        self._store = store
        self._queues = queues
        self._dispatcher = dispatcher
        self._http_tokens = http_tokens

    def create_task(self, request: Any) -> Any:
        """Queue a task."""
        queue, named = parse_queue(request.parent), bool(request.task.name)
        chosen = ""
        if named:
            own, chosen = parse_task(request.task.name)
            if own != queue:
                raise errors.invalid(
                    f"The queue name from request ('{queue}') must be the same as the queue name in the named task "
                    f"('{own}')."
                )
        self._queues.check(queue)
        while True:
            now = self._store.clock.now()
            name = chosen or make_id(queue.key, now)
            task = complete(request.task, queue, name, now, http_tokens=self._http_tokens)
            try:
                self._store.add([to_row(task, queue, name, named=named)], now)
            except TaskAlreadyExistsError:
                if named:
                    raise self._explain_taken(queue, name) from None
                continue
            break
        if self._queues.find(queue.key) is None:
            # Deleted in between, with the tasks that it had then.
            self._store.delete(queue.key, name)
            raise errors.no_queue()
        return self._in_view(task, request.response_view)

    def _explain_taken(self, queue: QueueName, name: str) -> errors.ApiError:
        found = self._read(queue, name)
        return errors.task_existed() if found is None or found[1] == State.ENDED else errors.task_exists()

    def get_task(self, request: Any) -> Any:
        """Return a task."""
        queue, name = parse_task(request.name)
        leased, state = self._find(queue, name)
        return self._show(leased, state, request.response_view)

    def list_tasks(self, request: Any) -> Any:
        """Return the tasks of a queue, page by page."""
        queue, now = parse_queue(request.parent), self._store.clock.now()
        self._queues.check(queue)
        after = read_token(request.page_token, request.parent, now)
        most = page_size(request.page_size, MOST_TASKS)
        full = request.response_view == api().Task.FULL
        most = min(most, _FULL_ROWS) if full else most
        # One more tells whether there is another page.
        rows = self._store.select(_FULL if full else _BASIC, (queue.key, after, most + 1))
        tasks: list[Any] = []
        size = 0
        for row in rows[:most]:
            task = self._show(Leased._make(row[:-1]), row[-1], request.response_view)
            size += task.ByteSize()
            if tasks and size > PAGE_BYTES:
                break
            tasks.append(task)
        more = len(rows) > len(tasks)
        token = make_token(request.parent, rows[len(tasks) - 1][2], now) if more else ""
        return api().ListTasksResponse(tasks=tasks, next_page_token=token)

    def delete_task(self, request: Any) -> Any:
        """Delete a task, under way or not."""
        from google.protobuf.empty_pb2 import Empty

        queue, name = parse_task(request.name)
        if not self._store.delete(queue.key, name):
            raise self._explain_missing(queue, name)
        return Empty()

    def run_task(self, request: Any) -> Any:
        """Make a task's next attempt begin now, and show it as it is then."""
        queue, name = parse_task(request.name)
        leased, state = self._find(queue, name)
        if state == State.RUNNING:
            return self._show(leased, state, request.response_view)
        with self._dispatcher.expect_start(queue.key, name) as start:
            called = self._store.clock.now()
            self._store.run_now(queue.key, name)
            began = start.wait(PATIENCE)
        # As it was, and what became of it: it may have ended in the meantime.
        leased = leased._replace(due=-called)
        return self._show(leased, state if began is None else State.RUNNING, request.response_view, began)

    # What they share.

    def _read(self, queue: QueueName, name: str) -> tuple[Leased, int] | None:
        rows = self._store.select(_ONE, (queue.key, name))
        return (Leased._make(rows[0][:-1]), rows[0][-1]) if rows else None

    def _find(self, queue: QueueName, name: str) -> tuple[Leased, int]:
        """Return a task's row, with its state.

        Raises:
            ApiError: there is none.
        """
        found = self._read(queue, name)
        if found is None or found[1] == State.ENDED:
            raise self._explain_missing(queue, name, found)
        return found

    def _explain_missing(self, queue: QueueName, name: str, found: tuple[Leased, int] | None = None) -> errors.ApiError:
        """Return the error for a task that is not there, or not any more."""
        now, found = self._store.clock.now(), found or self._read(queue, name)
        if found is not None:
            return errors.task_ended() if found[0].due > now else errors.not_found()
        seconds = get_settings().tombstone_seconds
        return errors.task_ended() if was_made(queue.key, name, now, seconds) else errors.not_found()

    def _show(self, leased: Leased, state: int, view: int, began: int | None = None) -> Any:
        if began is None:
            began = self._dispatcher.find_start(leased.queue, leased.name)
        return to_message(leased, state, full=view == api().Task.FULL, dispatched=began)

    @staticmethod
    def _in_view(task: Any, view: int) -> Any:
        """Return a task that was just made as it is shown: without its body unless the view is FULL."""
        task.view = api().Task.FULL if view == api().Task.FULL else api().Task.BASIC
        if task.view != api().Task.FULL:
            getattr(task, task.WhichOneof("message_type")).ClearField("body")
        return task
