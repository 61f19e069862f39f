"""What is sent comes, once, as it was sent; and what is refused leaves nothing behind."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from soc_tasks import (
    ConfigurationError,
    NotSupportedError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskRequest,
    TaskTooLargeError,
    startTask,
    startTasks,
)
from soc_tasks.signals import task_enqueued
from soc_tasks.state import get_state
from soc_tasks.values import MAX_SECONDS
from tests.contracts import backend_site
from tests.contracts.backend_site import calls

HOUR = 3600


class EnqueueContract:
    """Assertions on one task or many, from the start to the run."""

    def test_a_task_runs_once_with_what_it_was_sent(self, site):
        context = {
            "plain": "a b&c=ü",
            "list": ["a", "b"],
            "number": 7,
            "nothing": None,
            "price": Decimal("12.30"),
            "day": date(2026, 1, 2),
            "nested": {"filter": [1, (2, "x")]},
        }
        startTask("play", context, headers={"X-Mine": "y"})
        assert (site.count(), calls) == (1, [])
        site.run()
        site.run()
        [call] = calls
        assert call.info.context == context
        assert (call.post["plain"], call.post["list"], call.post["number"]) == (["a b&c=ü"], ["a", "b"], ["7"])
        assert (call.method, call.headers["X-Mine"]) == ("POST", "y")
        assert site.count() == 0
        assert get_state().list_dead_letters() == []

    def test_arguments_of_the_url_and_its_query(self, site):
        startTask("play_slug", url_kwargs={"slug": "first"})
        startTask(backend_site.play, url_args=["second"])
        startTask("/tasks/play/third/?page=2&q=%C3%BC")
        site.run()
        assert sorted((call.kwargs["slug"], call.query.get("q")) for call in calls) == [
            ("first", None),
            ("second", None),
            ("third", "ü"),
        ]

    def test_a_task_is_told_who_it_is(self, site):
        handle = startTask("play", None, "quick")
        site.run()
        [call] = calls
        assert (call.info.name, call.info.queue) == (handle.name, handle.queue) == (handle.name, "quick")
        assert call.told == (True, handle.name, "quick", 0, 0)
        assert (call.info.retry_count, call.info.previous_status, call.info.is_last_attempt) == (0, None, False)
        assert backend_site.tell() == (False, None, None, None, None)

    def test_a_chosen_name_arrives(self, site):
        assert startTask("play", name="Chosen_1-a").name == "Chosen_1-a"
        site.run()
        assert [call.info.name for call in calls] == ["Chosen_1-a"]

    def test_the_deadline_of_an_attempt(self, site):
        left = []
        backend_site.always.append(lambda request: left.append(request.task.time_left()))
        startTask("play", dispatch_deadline=20)
        startTask("play")
        site.run()
        shorter, usual = sorted(left)
        assert timedelta(0) < shorter <= timedelta(seconds=20) < usual <= timedelta(minutes=10)

    def test_every_deadline_is_taken(self, site):
        left = []
        backend_site.always.append(lambda request: left.append(request.task.time_left()))
        for seconds in (14, 86_415):
            startTask("play", dispatch_deadline=seconds)
        site.run()
        shortest, longest = sorted(left)
        assert timedelta(0) < shortest <= timedelta(seconds=14)
        assert timedelta(minutes=29) < longest <= timedelta(seconds=86_415)

    def test_many_keep_their_order(self, site):
        requests = [TaskRequest("play_slug", url_kwargs={"slug": f"s{n}"}, queue="quick") for n in range(14)]
        handles = startTasks([*requests, {"url": "play_slug", "url_kwargs": {"slug": "last"}, "name": "own"}])
        assert [handle.url for handle in handles] == [f"/tasks/play/s{n}/" for n in range(14)] + ["/tasks/play/last/"]
        assert [handle.queue for handle in handles] == ["quick"] * 14 + ["default"]
        assert site.count() == 15
        site.run()
        ran = {(call.info.name, call.info.queue, f"/tasks/play/{call.kwargs['slug']}/") for call in calls}
        assert ran == {(handle.name, handle.queue, handle.url) for handle in handles}
        assert len(calls) == 15

    def test_names_that_nobody_chose_never_collide(self, site):
        handles = [*startTasks([{"url": "play"}] * 10), startTask("play")]
        assert len({handle.name for handle in handles}) == 11
        site.run()
        assert sorted(call.info.name for call in calls) == sorted(handle.name for handle in handles)

    def test_each_task_is_signalled(self, site):
        told = []

        def hear(sender, task, **_):
            told.append((sender, task.queue, task.name))

        task_enqueued.connect(hear)
        try:
            handles = startTasks([{"url": "play"}, {"url": "play", "queue": "quick"}])
            with pytest.raises(QueueNotFoundError):
                startTask("play", None, "nowhere")
        finally:
            task_enqueued.disconnect(hear)
        assert told == [(site.backend, handle.queue, handle.name) for handle in handles]


class LaterContract:
    """Assertions on when a task runs."""

    @pytest.mark.parametrize("how", ["countdown", "eta"])
    def test_a_task_does_not_run_before_its_time(self, site, how):
        later = datetime.now(UTC) + timedelta(hours=1)
        handle = startTask("play", **({"eta": later} if how == "eta" else {"countdown": HOUR}))
        assert abs(handle.eta - later) < timedelta(minutes=1)
        startTask("play_slug", url_kwargs={"slug": "now"})
        site.run()
        assert site.count() == site.waits
        if site.waits:
            assert [call.kwargs["slug"] for call in calls] == ["now"]
        else:
            assert len(calls) == 2
        if site.clock is None:
            return
        site.clock.advance(HOUR - 60)
        site.run()
        assert site.count() == 1
        site.clock.advance(61)
        site.run()
        assert [call.info.name for call in calls[1:]] == [handle.name]
        assert abs(calls[1].info.eta - handle.eta) < timedelta(milliseconds=1)

    def test_a_time_that_is_past_is_now(self, site):
        startTask("play", eta=datetime.now(UTC) - timedelta(days=1))
        startTask("play", countdown=0)
        site.run()
        assert len(calls) == 2

    def test_the_longest_wait(self, site):
        startTask("play", countdown=MAX_SECONDS)
        assert site.count() == 1
        with pytest.raises(ValueError, match="30 days"):
            startTask("play", countdown=MAX_SECONDS + 1)
        assert site.count() == 1


class RefusalContract:
    """Assertions on what is not taken, by itself or among others: nothing is written then."""

    @pytest.fixture
    def refused(self, site):
        """Give a function that starts two tasks of which the second is refused, and tells with what."""

        def refused(error, **request):
            good = {"url": "play_slug", "url_kwargs": {"slug": "good"}}
            before = site.count()
            with pytest.raises(error) as caught:
                startTasks([good, {"url": "play", **request}])
            assert site.count() == before
            return str(caught.value)

        return refused

    def test_a_queue_that_is_not_there(self, site, refused):
        assert "nowhere" in refused(QueueNotFoundError, queue="nowhere")

    @pytest.mark.parametrize("routing", ["service", "version", "instance"])
    def test_routing_where_there_is_none(self, site, refused, routing):
        if site.routes:
            startTask("play", **{routing: "one"})
            assert site.count() == 1
        else:
            refused(NotSupportedError, **{routing: "one"})

    def test_the_largest_task_and_one_byte_more(self, site, refused):
        length = 900_000 + 1_048_569 - site.measure({"text": "x" * 900_000})
        startTask("play", {"text": "x" * length})
        assert "1,048,569" in refused(TaskTooLargeError, context={"text": "x" * (length + 1)})
        site.run()
        assert [len(call.info.context["text"]) for call in calls] == [length]

    def test_a_name_that_is_taken(self, site):
        startTask("play", name="once")
        for using in (None, "default", "other"):
            with pytest.raises(TaskAlreadyExistsError, match="once"):
                startTask("play", name="once", using=using)
        # Each queue has names of its own.
        startTask("play", None, "quick", name="once")
        site.run()
        assert len(calls) == 2
        # It stays taken for a while after its task has ended.
        with pytest.raises(TaskAlreadyExistsError, match="once"):
            startTask("play", name="once")
        site.run()
        assert len(calls) == 2

    def test_a_name_is_free_again_after_a_while(self, site):
        startTask("play", name="once")
        site.run()
        if site.frees_names:
            site.clock.advance(86_401)
            startTask("play", name="once")
        else:
            with pytest.raises(TaskAlreadyExistsError):
                startTask("play", name="once")
        site.run()
        assert len(calls) == (2 if site.frees_names else 1)

    def test_a_name_that_stands_twice_in_one_call(self, site):
        with pytest.raises(TaskAlreadyExistsError, match="twice"):
            startTasks([{"url": "play", "name": "first"}] + [{"url": "play", "name": "twice"}] * 2)
        assert site.count() == 0

    @pytest.mark.parametrize("name", [None, "chosen"])
    def test_an_alias_that_is_none(self, site, name):
        with pytest.raises(ConfigurationError, match="nowhere"):
            startTask("play", name=name, using="nowhere")
        assert site.count() == 0
