"""`defer_iteration_with_finalize`: its arguments in all their forms, and what it refuses."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models import Count

from soc_tasks import (
    ConfigurationError,
    NotSupportedError,
    PayloadError,
    TaskHandle,
    defer_iteration_with_finalize,
    task,
)
from soc_tasks.logic import deferred
from soc_tasks.logic.deferred_iterations import _take_options
from soc_tasks.logic.sharding import sequential_int_key_ranges
from soc_tasks.models import PayloadRow
from tests.specimen.iterating import callback, finalize, halves, two_arguments
from tests.specimen.models import Entry, Row, Seat

pytestmark = pytest.mark.django_db

DEFAULTS = {
    "key_ranges_getter": None, "order_field": "pk", "_queue": "default", "_service": None, "_version": None,
    "_shards": 5, "_delete_marker": True, "_transactional": None, "_using": "default", "_atomic": False,
    "_batch_size": None, "_throttle": None, "_on_error": "retry", "_error_budget": None,
}  # fmt: skip


def take(*args, **kwargs):
    """Return the options that are not the defaults, and what is left for the functions."""
    options, rest = _take_options(args, kwargs)
    assert options.keys() == DEFAULTS.keys()
    return {name: value for name, value in options.items() if value != DEFAULTS[name]}, rest, kwargs


def test_it_has_two_homes():
    assert deferred.defer_iteration_with_finalize is defer_iteration_with_finalize


@pytest.mark.parametrize(
    ("args", "options", "rest"),
    [
        ((), {}, ()),
        # The earliest form.
        (("slow",), {"_queue": "slow"}, ()),
        (("slow", 3, False, True, "a", 2), {"_queue": "slow", "_shards": 3, "_delete_marker": False, "_transactional": True}, ("a", 2)),  # noqa: E501
        # The later ones begin with the getter.
        ((halves,), {"key_ranges_getter": halves}, ()),
        ((None, "hits"), {"order_field": "hits"}, ()),
        ((halves, "hits", "slow"), {"key_ranges_getter": halves, "order_field": "hits", "_queue": "slow"}, ()),
        ((None, "pk", None, 3), {"_shards": 3}, ()),
        ((None, "pk", "slow", 3, False, False, 8), {"_queue": "slow", "_shards": 3, "_delete_marker": False, "_transactional": False}, (8,)),  # noqa: E501
        ((None, "pk", "default", "w", 3, False), {"_service": "w", "_shards": 3, "_delete_marker": False}, ()),
        ((None, "pk", "default", None, 3, True, True, "a"), {"_shards": 3, "_transactional": True}, ("a",)),
        ((None, "pk", "default", "worker", "v1", 3), {"_service": "worker", "_version": "v1", "_shards": 3}, ()),
        ((None, "pk", "default", None, None, 3, False, True, [1]), {"_shards": 3, "_delete_marker": False, "_transactional": True}, ([1],)),  # noqa: E501
        ((None, "pk", "default", "worker"), {"_service": "worker"}, ()),
    ],
)  # fmt: skip
def test_positional_forms(args, options, rest):
    assert take(*args) == (options, rest, {})


@pytest.mark.parametrize(
    "args",
    [
        (5,), ([1],), (True,), ("slow", "3"), ("slow", True), ("slow", 3, 1), ("slow", 3, True, "x"), (None, 5),
        (None, "pk", 5), (None, "pk", "slow", 1.5), (None, "pk", "slow", True), (None, "pk", "slow", "x", True),
        (None, "pk", "slow", "x", "y", "z"), (None, "pk", "slow", 3, "x"), (halves, halves),
    ],
)  # fmt: skip
def test_positional_arguments_that_fit_no_form_name_the_keywords(args):
    with pytest.raises(TypeError, match=r"_shards.*_delete_marker"):
        take(*args)


def test_options_by_name_and_the_functions_own():
    assert take(_shards=2, order_field="hits", word="x") == ({"_shards": 2, "order_field": "hits"}, (), {"word": "x"})
    assert take("slow", _shards=2) == ({"_queue": "slow", "_shards": 2}, (), {})
    assert take(_on_error="retry", _error_budget=None) == ({}, (), {})
    with pytest.raises(TypeError, match="_queue by position and by name"):
        take("slow", _queue="slow")
    with pytest.raises(TypeError, match="no option _eta; it knows"):
        take(_eta=None)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"_shards": "5"}, TypeError),
        ({"_shards": True}, TypeError),
        ({"_shards": 0}, ValueError),
        ({"_shards": 1001}, ValueError),
        ({"_batch_size": 0}, ValueError),
        ({"_batch_size": 1001}, ValueError),
        ({"_throttle": 5}, TypeError),
        ({"_throttle": lambda: None}, PayloadError),
        ({"_on_error": None}, TypeError),
        ({"_on_error": "stop"}, ValueError),
        ({"_error_budget": "5"}, TypeError),
        ({"_error_budget": 5}, ValueError),
        ({"_on_error": "skip", "_error_budget": 1.5}, ValueError),
        ({"_delete_marker": 1}, TypeError),
        ({"_atomic": None}, TypeError),
        ({"_using": "nowhere"}, ConfigurationError),
        ({"order_field": None}, TypeError),
        ({"order_field": "nothing"}, ValueError),
        ({"order_field": "-pk"}, ValueError),
        ({"key_ranges_getter": 5}, TypeError),
        ({"key_ranges_getter": lambda queryset, shard_count: []}, PayloadError),
        ({"other": 5}, TypeError),
        ({"_version": "v1"}, NotSupportedError),
    ],
)
def test_options_that_cannot_be_are_refused_and_nothing_is_queued(task_queues, options, error):
    with pytest.raises(error):
        defer_iteration_with_finalize(Row.objects.all(), two_arguments, finalize, **{"word": "x", **options})
    assert PayloadRow.objects.count() == 0
    task_queues.assertNumTasksEquals(0)


@task
def view(request):
    """Nothing to be called with an instance."""


async def wait(instance):
    """Nobody can call it."""


@pytest.mark.parametrize(
    ("queryset", "functions", "error"),
    [
        (lambda: [1], (callback, finalize), TypeError),
        (lambda: Row, (callback, finalize), TypeError),
        (lambda: Row.objects.all()[:5], (callback, finalize), PayloadError),
        (lambda: Row.objects.values("pk"), (callback, finalize), PayloadError),
        (lambda: Entry.objects.annotate(n=Count("tags")), (callback, finalize), PayloadError),
        (Seat.objects.all, (callback, finalize), ValueError),
        (Row.objects.all, (5, finalize), TypeError),
        (Row.objects.all, (callback, None), TypeError),
        (Row.objects.all, (callback, "finalize"), TypeError),
        (Row.objects.all, (wait, finalize), TypeError),
        (Row.objects.all, (callback, view), TypeError),
        (Row.objects.all, (lambda instance: None, finalize), PayloadError),
        (Row.objects.all, (callback, print), PayloadError),
        (Row.objects.all, (two_arguments, finalize), TypeError),
    ],
)
def test_what_cannot_be_iterated_over_or_called_is_refused(task_queues, queryset, functions, error):
    with pytest.raises(error):
        defer_iteration_with_finalize(queryset(), *functions)
    task_queues.assertNumTasksEquals(0)


def test_a_handle_with_the_iterations_id(task_queues, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "slow"}]
    handle = defer_iteration_with_finalize(Row.objects, callback, finalize, None, "pk", "slow")
    assert isinstance(handle, TaskHandle)
    assert handle.iteration == PayloadRow.objects.get().start_id
    assert (handle.queue, handle.url) == ("slow", "/_tasks/deferred-iteration/")
    task_queues.assertNumTasksEquals(1, "slow")


def test_nothing_of_it_stands_in_the_message(memory_backend):
    defer_iteration_with_finalize(Row.objects.filter(hits=77), callback, finalize, secret="hush")
    [queued] = memory_backend.tasks_now()
    assert b"hush" not in queued.body
    assert b"SELECT" not in queued.body.upper()
    assert b"tests.specimen.iterating.callback" in queued.body


def test_without_the_urls_it_is_said(task_queues, settings):
    settings.ROOT_URLCONF = ()
    with pytest.raises(ConfigurationError, match="include"):
        defer_iteration_with_finalize(Row.objects.all(), callback, finalize)


@pytest.mark.django_db(databases=["default", "other"])
def test_atomic_over_two_databases_is_refused(task_queues):
    with pytest.raises(ConfigurationError, match="one database"):
        defer_iteration_with_finalize(Row.objects.using("other"), callback, finalize, _atomic=True)


class OnPurposeError(Exception):
    pass


@pytest.mark.django_db(transaction=True)
def test_in_an_atomic_block_it_commits_with_it(task_queues):
    def fail():
        with transaction.atomic():
            defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _transactional=False)
            raise OnPurposeError

    with pytest.raises(OnPurposeError):
        fail()
    task_queues.assertNumTasksEquals(0)
    assert PayloadRow.objects.count() == 0
    with transaction.atomic():
        defer_iteration_with_finalize(Row.objects.all(), callback, finalize, sequential_int_key_ranges)
    task_queues.assertNumTasksEquals(1)
