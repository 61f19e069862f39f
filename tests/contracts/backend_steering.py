"""What people see of queues and tasks, and do to them, on every backend that lets them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from soc_tasks import startTask
from soc_tasks.backends import get_backend
from soc_tasks.errors import NotSupportedError
from soc_tasks.logic.overview import read_overview
from tests.backends.sites.base import in_thread
from tests.contracts import backend_site
from tests.engine.tasks import make_task


class SteeringContract:
    """Assertions on `site`."""

    def test_tasks_are_listed_and_shown(self, site):
        backend = get_backend()
        startTask("play", {"n": "1"}, name="first")
        startTask("play", queue="quick", name="second")
        records = in_thread(backend.list_tasks)
        assert {(record.task.queue, record.task.name) for record in records} == {
            ("default", "first"),
            ("quick", "second"),
        }
        assert {(record.state, record.attempts, record.task.body) for record in records} == {("waiting", 0, b"")}
        assert [record.task.name for record in in_thread(lambda: backend.list_tasks("quick"))] == ["second"]
        assert len(in_thread(lambda: backend.list_tasks(limit=1))) == 1
        shown = in_thread(lambda: backend.get_task("default", "first"))
        assert (shown.task.path, shown.task.body) == ("/tasks/play/", b"n=1")
        assert abs(shown.due - timezone.now()) < timedelta(minutes=1)
        assert in_thread(lambda: backend.get_task("quick", "first")) is None

    def test_a_task_that_nobody_named_is_found_by_the_name_of_its_handle(self, site):
        backend, handle = get_backend(), startTask("play")
        assert in_thread(lambda: backend.get_task("default", handle.name)) is not None
        [listed] = in_thread(backend.list_tasks)
        assert in_thread(lambda: backend.delete_task("default", listed.task.name))
        assert in_thread(backend.list_tasks) == []

    def test_whether_a_task_is_there_is_told_of_named_ones_and_others(self, site):
        backend = get_backend()
        made = make_task("chosen", named=True), make_task("0" * 32)
        backend.submit(made)
        assert [in_thread(lambda task=task: backend.has_task(task)) for task in made] == [True, True]
        assert not in_thread(lambda: backend.has_task(make_task("nobody")))
        in_thread(lambda: backend.purge("default"))
        assert [in_thread(lambda task=task: backend.has_task(task)) for task in made] == [False, False]

    def test_delete(self, site):
        backend = get_backend()
        startTask("play", name="first")
        startTask("play", name="second")
        assert in_thread(lambda: backend.delete_task("default", "first"))
        assert not in_thread(lambda: backend.delete_task("default", "nobody"))
        site.run()
        assert [call.info.name for call in backend_site.calls] == ["second"]

    def test_purge_empties_one_queue(self, site):
        backend = get_backend()
        startTask("play")
        startTask("play", queue="quick")
        in_thread(lambda: backend.purge("default"))
        site.run()
        assert [call.info.queue for call in backend_site.calls] == ["quick"]

    def test_a_paused_queue_is_shown_as_such_and_run_now_passes_it(self, site):
        backend = get_backend()
        if not site.steers:
            for call in (lambda: backend.pause("default"), lambda: backend.run_now("default", "now")):
                with pytest.raises(NotSupportedError, match="MemoryBackend cannot"):
                    call()
            return
        startTask("play", name="now", countdown=3600)
        startTask("play", name="later", countdown=3600)
        in_thread(lambda: backend.pause("default"))
        assert {queue.name: queue.paused for queue in in_thread(backend.list_queues)}["default"]
        in_thread(lambda: backend.resume("default"))
        paused = {queue.name: queue.paused for queue in in_thread(backend.list_queues)}
        assert not paused["default"]
        assert in_thread(lambda: backend.run_now("default", "now"))
        assert not in_thread(lambda: backend.run_now("default", "nobody"))
        site.run()
        assert [call.info.name for call in backend_site.calls] == ["now"]

    def test_the_overview_tells_what_can_be_told(self, site):
        startTask("play")
        overview = in_thread(read_overview)
        assert [queue.name for queue in overview.queues] == ["default", "quick"]
        assert overview.counts.waiting in (None, 1)
        assert overview.counts.dead_letters == 0
        assert "backend_unavailable" not in {alert.kind for alert in overview.alerts}
