"""The public surface: every name where it is promised, with the signature that others call."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import TestCase, TransactionTestCase

import soc_tasks
from soc_tasks import errors, testing

ROOT = Path(soc_tasks.__file__).parent

HOMES = {
    "logic.tasks": "startTask startTasks",
    "logic.iterations": "Iteration",
    "logic.deferred": "defer defer_iteration_with_finalize get_deferred_shard_index",
    "logic.payloads": "register_codec",
    "logic.batches": "DatastoreLogic ModelLogic register_logic",
    "logic.timekeeper": "Timekeeper",
    "logic.write_back": "write_back",
    "values": "Hold RetryOptions TaskHandle TaskInfo TaskRequest",
    "views.responses": "terminateTask repeatTask",
    "views.decorators": "task iterative_task",
    "views.access": (
        "from_queue from_cron superuser staff has_permission task_only task_or_superuser_only "
        "is_in_task is_in_cron task_name task_queue_name task_retry_count task_execution_count"
    ),
    "errors": (
        "SocTasksError EnqueueError TaskAlreadyExistsError TaskTooLargeError QueueNotFoundError "
        "BackendUnavailableError FatalTaskError PermanentTaskFailure SingularTaskFailure PayloadError "
        "NotSupportedError DeadlineExceededError ConfigurationError DoNotRepeatException"
    ),
}
NAMES = [(module, name) for module, names in HOMES.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_is_in_its_module_and_in_the_package(module, name):
    home = import_module(f"soc_tasks.{module}")
    assert getattr(soc_tasks, name) is getattr(home, name)
    assert name in soc_tasks.__all__
    assert name in dir(soc_tasks)


def test_the_package_exports_nothing_else():
    assert sorted(soc_tasks.__all__) == sorted(name for _, name in NAMES)
    with pytest.raises(AttributeError, match="no_such_name"):
        soc_tasks.no_such_name  # noqa: B018 - the lookup is the test


def test_type_checkers_see_every_name():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {(f"soc_tasks.{module}", name) for module, name in NAMES}


#: As tests outside this repository call them: names in order, "*" where keywords begin, defaults that matter.
SIGNATURES = {
    "startTask": (
        "url, context=None, queue='default', *, url_args=None, url_kwargs=None, countdown=None, eta=None, name=None, "
        "headers=None, service=None, version=None, instance=None, dispatch_deadline=None, retry_options=None, "
        "using=None"
    ),
    "startTasks": "requests, queue='default', *, using=None",
    "terminateTask": "",
    "repeatTask": "countdown=None",
    "iterative_task": (
        "logic=None, repeat_in=None, *, filter=None, fields=None, order=None, start_key=None, batch_size=None, "
        "shards=1, finalize=None, atomic=False, time_limit=None, on_error='retry', access=from_queue, using=None, "
        "throttle=None, error_budget=None"
    ),
    "task": "view=None, /, *, access=from_queue, atomic=False, using=None, fatal_on=(), max_attempts=None",
    "register_logic": "name, logic",
    "DatastoreLogic": "source, client=None, namespace=None, ancestor=None, order_field=None, batch_size=100",
    "defer": "function, /, *args, **kwargs",
    "defer_iteration_with_finalize": "queryset, callback, finalize, *args, **kwargs",
    "get_deferred_shard_index": "",
    "register_codec": "kind, encode, decode",
    "has_permission": "permission",
}


def bare(function):
    """A signature without its annotations."""
    signature = inspect.signature(function)
    parameters = [part.replace(annotation=inspect.Parameter.empty) for part in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))[1:-1]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_as_promised(name):
    assert bare(getattr(soc_tasks, name)) == SIGNATURES[name]


BATCH = "filter=None, start_key=None, batch_size=None, *, order=None, end_key=None"


@pytest.mark.parametrize(
    ("owner", "method", "signature"),
    [
        ("Timekeeper", "ping", "self"),
        ("Timekeeper", "iterate", "self, items"),
        ("ModelLogic", "getBatchOfData", f"self, {BATCH}"),
        ("ModelLogic", "count", "self, filter=None"),
        ("DatastoreLogic", "getBatchOfData", f"self, {BATCH}"),
        ("DatastoreLogic", "count", "self, filter=None"),
        ("Iteration", "pause", "self"),
        ("Iteration", "resume", "self"),
        ("Iteration", "cancel", "self"),
        ("Iteration", "refresh", "self"),
        ("TaskInfo", "time_left", "self"),
    ],
)
def test_methods_are_as_promised(owner, method, signature):
    assert bare(getattr(getattr(soc_tasks, owner), method)) == signature


def test_values_have_the_fields_that_are_promised():
    def fields(name):
        return list(inspect.signature(getattr(soc_tasks, name)).parameters)

    options = ["max_attempts", "max_retry_duration", "min_backoff", "max_backoff", "max_doublings"]
    assert fields("RetryOptions") == options
    assert fields("TaskHandle") == ["name", "queue", "url", "eta", "iteration"]
    start = list(inspect.signature(soc_tasks.startTask).parameters)
    assert set(fields("TaskRequest")) == set(start) - {"using"}
    told = "name queue retry_count execution_count eta previous_status is_last_attempt context iteration shard step"
    assert set(told.split()) <= set(fields("TaskInfo"))


TREE = {
    "SocTasksError": Exception,
    "EnqueueError": errors.SocTasksError,
    "TaskAlreadyExistsError": errors.EnqueueError,
    "TaskTooLargeError": errors.EnqueueError,
    "QueueNotFoundError": (errors.EnqueueError, ValueError),
    "BackendUnavailableError": errors.EnqueueError,
    "FatalTaskError": errors.SocTasksError,
    "PermanentTaskFailure": errors.FatalTaskError,
    "SingularTaskFailure": errors.SocTasksError,
    "PayloadError": (errors.SocTasksError, TypeError),
    "NotSupportedError": errors.SocTasksError,
    "DeadlineExceededError": errors.SocTasksError,
    "ConfigurationError": (errors.SocTasksError, ImproperlyConfigured),
    "DoNotRepeatException": Exception,
}


@pytest.mark.parametrize("name", TREE)
def test_errors_form_the_tree_that_is_promised(name):
    bases = TREE[name] if isinstance(TREE[name], tuple) else (TREE[name],)
    error = getattr(errors, name)
    assert error.__bases__ == bases
    assert str(error("why")) == "why"
    if issubclass(error, errors.SocTasksError):
        assert str(error())


def test_the_test_tools_are_as_promised():
    assert issubclass(testing.TaskTestCase, TestCase | testing.TaskTestMixin)
    assert issubclass(testing.TaskTransactionTestCase, TransactionTestCase)
    assert not issubclass(testing.TaskTransactionTestCase, TestCase)
    mixin = testing.TaskTestMixin
    raising = "failure_behaviour=<TaskFailedBehaviour.RAISE_ERROR: 2>"
    assert bare(mixin.process_task_queues) == f"self, queue_name=None, {raising}"
    assert bare(mixin.flush_task_queues) == bare(mixin.get_task_count) == "self, queue_name=None"
    assert bare(mixin.assertNumTasksEquals) == "self, num, queue_name=None"
    options = "read_state=None, ignore=(), interruptions=100"
    assert bare(mixin.assert_resumable) == f"self, start, *args, {options}, **kwargs"
    assert isinstance(mixin.max_task_retry_count, int)
    assert {behaviour.name for behaviour in testing.TaskFailedBehaviour} == {"DO_NOTHING", "RETRY_TASK", "RAISE_ERROR"}


#: Melange's words; everything else is snake_case, but what unittest, Django and http.server call by names of their own.
CAMEL_CASE = {"startTask", "startTasks", "terminateTask", "repeatTask", "getBatchOfData"}
OVERRIDES = {"do_GET", "setUp", "setUpClass", "tearDown", "tearDownClass", "setUpTestData"}


def find_camel_case(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (part for part in [node.name] if part.lower() != part)
        if isinstance(node, ast.arg) and node.arg.lower() != node.arg:
            yield f"{node.arg} (a parameter)"


def test_camel_case_is_a_closed_list():
    found = {name for path in ROOT.rglob("*.py") for name in find_camel_case(path)}
    assert {name for name in found if not name.startswith("assert")} <= CAMEL_CASE | OVERRIDES
