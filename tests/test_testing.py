"""The test tools: what counts as committed, in which order things run, and what a failure does."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from soc_tasks import ConfigurationError, FatalTaskError, Iteration, RetryOptions, repeatTask, startTask
from soc_tasks.backends import get_backend
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.state import get_state
from soc_tasks.testing import (
    TaskFailedBehaviour,
    TaskFailedError,
    TaskQueues,
    TaskTestCase,
    TaskTestMixin,
    TaskTransactionTestCase,
)
from tests import site
from tests.specimen.models import Tag


def fail(request, **_):
    raise ValueError("always")


def names():
    return [request.task.name for _, request, _ in site.calls]


class Common:
    """What holds with a transaction around the test and without."""

    databases = ("default", "other")

    def test_the_queues_are_empty_at_first(self):
        self.assertNumTasksEquals(0)
        startTask("behave", name="left-over")
        self.assertNumTasksEquals(1)

    def test_outside_a_block_a_task_is_queued_at_once(self):
        startTask("behave")
        assert self.get_task_count() == 1

    def test_a_block_counts_when_it_has_ended(self):
        with transaction.atomic():
            startTask("behave", name="a")
            self.assertNumTasksEquals(0)
            self.process_task_queues()
            assert names() == []
        self.assertNumTasksEquals(1)
        self.process_task_queues()
        assert names() == ["a"]

    def test_a_block_that_is_rolled_back_never_was(self):
        with transaction.atomic():
            startTask("behave", name="a")
            transaction.set_rollback(True)
        self.assertNumTasksEquals(0)
        startTask("behave", name="a")

    def test_blocks_inside_a_block(self):
        with transaction.atomic():
            startTask("behave", name="outer")
            with transaction.atomic():
                startTask("behave", name="inner")
            with transaction.atomic():
                startTask("behave", name="gone")
                transaction.set_rollback(True)
            with transaction.atomic(savepoint=False):
                startTask("behave", name="flat")
            self.assertNumTasksEquals(0)
        self.process_task_queues()
        assert names() == ["outer", "inner", "flat"]

    def test_a_block_without_a_savepoint_is_a_block(self):
        with transaction.atomic(savepoint=False):
            startTask("behave", name="a")
            self.assertNumTasksEquals(0)
        self.assertNumTasksEquals(1)

    def test_what_a_rolled_back_block_held_is_gone_with_it(self):
        with transaction.atomic():
            with transaction.atomic():
                startTask("behave")
            transaction.set_rollback(True)
        self.assertNumTasksEquals(0)

    def test_another_alias_is_judged_by_its_own_blocks(self):
        with transaction.atomic(using="other"):
            startTask("behave", name="theirs", using="other")
            startTask("behave", name="ours")
            self.assertNumTasksEquals(1)
        with transaction.atomic(using="default"):
            startTask("behave", name="at-once", using="other")
            self.assertNumTasksEquals(3)

    def test_a_name_in_an_open_block_is_taken(self):
        with transaction.atomic():
            startTask("behave", name="a")
            with self.assertRaisesMessage(Exception, "'a' was used before"):
                startTask("behave", name="a")
        with self.assertRaisesMessage(Exception, "'a' was used before"):
            startTask("behave", name="a")

    def test_hooks_that_django_runs_do_not_double(self):
        with transaction.atomic():
            startTask("behave", name="a")
            transaction.on_commit(lambda: startTask("behave", name="b"))
        self.process_task_queues()
        assert names().count("a") == 1

    def test_tasks_that_tasks_queue_run_too(self):
        def chain(request, **_):
            step = request.task.context["step"]
            Tag.objects.create(name=str(step))
            if step < 3:
                with transaction.atomic():
                    startTask("behave", {"step": step + 1}, countdown=3600)

        site.behaviours["behave"] = chain
        startTask("behave", {"step": 0})
        self.process_task_queues()
        assert list(Tag.objects.order_by("id").values_list("name", flat=True)) == ["0", "1", "2", "3"]
        self.assertNumTasksEquals(0)

    def test_flush_forgets_open_blocks_as_well(self):
        with transaction.atomic():
            startTask("behave", name="a")
            self.flush_task_queues()
        self.assertNumTasksEquals(0)
        startTask("behave", name="a")

    def test_the_database_of_the_test_stays_as_it_was(self):
        def write(request, **_):
            Tag.objects.create(name="x")
            return repeatTask() if request.task.retry_count == 0 else None

        site.behaviours["behave"] = write
        startTask("behave")
        with transaction.atomic():
            Tag.objects.create(name="before")
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        assert Tag.objects.count() == 3


class InATestCase(Common, TaskTestCase):
    def test_captured_hooks_do_not_double(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            startTask("behave", name="a")
            with transaction.atomic():
                startTask("behave", name="b")
        assert len(callbacks) == 2
        self.assertNumTasksEquals(2)
        self.process_task_queues()
        self.process_task_queues()
        assert names() == ["a", "b"]

    def test_captured_and_not_executed_hooks_count_as_well(self):
        with self.captureOnCommitCallbacks():
            startTask("behave", name="a")
        self.process_task_queues()
        assert names() == ["a"]


class InATransactionTestCase(Common, TaskTransactionTestCase):
    pass


class WithDataOfTheClass(TaskTestCase):
    @classmethod
    def setUpTestData(cls):
        Tag.objects.create(name="x")
        startTask("behave", name="a")

    def test_its_tasks_are_not_the_tests(self):
        self.assertNumTasksEquals(0)
        startTask("behave", name="a")

    def test_its_data_is_there(self):
        site.behaviours["behave"] = lambda request, **_: Tag.objects.update(name="y") and None
        startTask("behave")
        self.process_task_queues()
        assert Tag.objects.get().name == "y"


class Mixed(TaskTestMixin, TestCase):
    def test_the_mixin_goes_with_any_test_case(self):
        startTask("behave")
        self.process_task_queues()
        assert len(site.calls) == 1


class WithoutTools(TransactionTestCase):
    def test_the_backend_is_what_the_settings_say(self):
        assert not isinstance(get_backend(), MemoryBackend)


pytestmark = pytest.mark.django_db(databases=["default", "other"])


def test_without_the_memory_backend_the_tools_say_so():
    for call in (TaskQueues().process_task_queues, TaskQueues().get_task_count):
        with pytest.raises(ConfigurationError, match="memory"):
            call()


def test_settings_that_a_test_overrides_do_not_take_the_backend_along(task_queues):
    with override_settings(SOC_TASKS={"SLICE_SECONDS": 1.0}):
        startTask("behave")
        assert task_queues.get_task_count() == 1


def test_queues_are_counted_processed_and_flushed_by_name(task_queues, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}, {"name": "slow"}]
    for queue in ("mail", "slow", "mail"):
        startTask("behave", queue=queue)
    counts = [task_queues.get_task_count(queue) for queue in ("mail", "slow", "default", "no-such", None)]
    assert counts == [2, 1, 0, 0, 3]
    task_queues.assertNumTasksEquals(2, "mail")
    task_queues.process_task_queues("slow")
    assert [request.task.queue for _, request, _ in site.calls] == ["slow"]
    task_queues.flush_task_queues("mail")
    task_queues.assertNumTasksEquals(0)


def test_a_wrong_number_says_what_is_there(task_queues):
    startTask("behave")
    with pytest.raises(AssertionError, match="2 tasks should be in queue 'default', and there are 1"):
        task_queues.assertNumTasksEquals(2, "default")
    with pytest.raises(AssertionError, match="all queues"):
        task_queues.assertNumTasksEquals(0)


def test_tasks_run_in_order_of_arrival_whatever_their_eta(task_queues):
    for name, countdown in (("a", 3600), ("b", 0), ("c", 86400)):
        startTask("behave", name=name, countdown=countdown)
    task_queues.process_task_queues()
    assert names() == ["a", "b", "c"]


def test_a_failure_is_raised_with_its_cause(task_queues):
    site.behaviours["behave"] = fail
    startTask("behave", name="bad")
    startTask("behave", name="next")
    with pytest.raises(TaskFailedError, match="bad") as caught:
        task_queues.process_task_queues()
    assert (caught.value.task_name, caught.value.status_code) == ("bad", 500)
    assert caught.value.original_exception is caught.value.__cause__
    assert isinstance(caught.value.original_exception, ValueError)
    task_queues.assertNumTasksEquals(1)


def test_an_answer_that_is_a_failure_needs_no_exception_of_its_own(task_queues):
    site.behaviours["behave"] = lambda request, **_: repeatTask()
    startTask("behave")
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == 500


def test_failures_may_be_left_alone(task_queues, site_calls):
    site.behaviours["behave"] = fail
    startTask("behave")
    startTask("behave")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert len(site_calls) == 2
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_task_is_retried_so_often_and_then_raised(task_queues, site_calls, limit):
    site.behaviours["behave"] = fail
    task_queues.max_task_retry_count = limit
    startTask("behave", retry_options=RetryOptions(max_attempts=-1))
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert isinstance(caught.value.original_exception, ValueError)
    assert len(site_calls) == limit + 1


def test_a_task_that_is_over_is_not_retried(task_queues, site_calls):
    def end(request, **_):
        raise FatalTaskError("over")

    site.behaviours["behave"] = end
    startTask("behave")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(site_calls) == 1
    assert len(get_state().list_dead_letters()) == 1


@pytest.mark.parametrize("behaviour", [TaskFailedBehaviour.RETRY_TASK, 1])
def test_a_behaviour_may_be_given_by_its_number(task_queues, site_calls, behaviour):
    site.behaviours["behave"] = lambda request, **_: repeatTask() if request.task.retry_count < 2 else None
    startTask("behave")
    task_queues.process_task_queues(None, behaviour)
    assert len(site_calls) == 3


def test_an_unknown_behaviour_is_refused(task_queues):
    startTask("behave")
    with pytest.raises(ValueError, match="7"):
        task_queues.process_task_queues(failure_behaviour=7)


def test_what_repeats_stays_queued_however_many_tasks_came_and_went(task_queues):
    """A task is known by itself, not by an address that another may get when it is gone."""
    for _ in range(50):
        startTask("behave")
        startTask("iterate_again")
    task_queues.process_task_queues()
    task_queues.assertNumTasksEquals(50)
    assert len(Iteration.all()) == 50


def test_the_fixture_of_the_plugin_stands_on_its_own(pytester):
    pytester.makepyfile(
        made_settings="""
            SECRET_KEY = "x"
            INSTALLED_APPS = ["soc_tasks"]
            ROOT_URLCONF = "made_site"
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        """,
        made_site="""
            from django.urls import path
            from soc_tasks import task

            ran = []

            @task
            def view(request):
                ran.append(request.task.context)

            urlpatterns = [path("view/", view, name="view")]
        """,
        test_it="""
            import made_site
            from soc_tasks import startTask

            def test_it(task_queues, db):
                startTask("view", {"n": 1})
                task_queues.process_task_queues()
                assert made_site.ran == [{"n": 1}]

            def test_without_a_database(task_queues):
                startTask("view")
                task_queues.assertNumTasksEquals(1)
        """,
    )
    result = pytester.runpytest_subprocess("--ds=made_settings", "-p", "no:randomly")
    result.assert_outcomes(passed=2)
