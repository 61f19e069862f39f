"""What can be decorated: anything that Django takes for a view, unless it is async."""

from __future__ import annotations

import functools

import pytest
from django.http import HttpResponse
from django.views import View

from soc_tasks import Iteration, iterative_task, startTask, task
from soc_tasks.checks import check_indexes
from tests.specimen.models import Entry, Program
from tests.views.calls import route

pytestmark = pytest.mark.django_db


def plain(ran, request, **kwargs):
    ran.append(sorted(kwargs))


class Instance:
    def __init__(self, ran):
        self.ran = ran

    def __call__(self, request, **kwargs):
        plain(self.ran, request, **kwargs)


def make_class_based(ran):
    class ClassBased(View):
        def post(self, request, **kwargs):
            plain(ran, request, **kwargs)
            return HttpResponse()

    return ClassBased.as_view()


KINDS = {
    "function": lambda ran: lambda request, **kwargs: plain(ran, request, **kwargs),
    "partial": lambda ran: functools.partial(plain, ran),
    "instance": Instance,
    "method": lambda ran: Instance(ran).__call__,
    "class-based": make_class_based,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_whatever_is_a_view_can_be_a_task(task_queues, make):
    ran = []
    with route(task(make(ran))):
        startTask("view")
        task_queues.process_task_queues()
    assert ran == [[]]


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_whatever_is_a_view_can_iterate(task_queues, make):
    Program.objects.create(name="x")
    ran = []
    with route(iterative_task(Program)(make(ran))):
        handle = startTask("view")
        task_queues.process_task_queues()
    assert ran == [["context", "entities"]]
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done) == ("succeeded", 1)
    assert iteration.name


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_an_iteration_without_an_index_is_named_whatever_its_view(make):
    with route(iterative_task(Entry, order="remark")(make([]))):
        [message] = check_indexes()
    assert message.id == "soc_tasks.W006"


async def coroutine(request, **kwargs):
    return None


class AsyncInstance:
    async def __call__(self, request, **kwargs):
        return None


class AsyncClassBased(View):
    async def post(self, request, **kwargs):
        return None


@pytest.mark.parametrize("decorate", [task, iterative_task(Program)], ids=["task", "iterative_task"])
@pytest.mark.parametrize(
    "view",
    [coroutine, functools.partial(coroutine), AsyncInstance(), AsyncInstance().__call__, AsyncClassBased.as_view()],
    ids=["function", "partial", "instance", "method", "class-based"],
)
def test_what_is_async_is_refused_at_decoration(decorate, view):
    with pytest.raises(TypeError, match="async"):
        decorate(view)


@pytest.mark.parametrize("bad", [5, "behave", [coroutine]])
def test_what_is_no_view_is_refused_at_decoration(bad):
    for decorate in (task, iterative_task(Program)):
        with pytest.raises(TypeError):
            decorate(bad)


@pytest.mark.parametrize("bad", [KeyError("x"), "KeyError", [KeyError, 5], BaseException, (int,)])
def test_fatal_on_takes_exceptions_only(bad):
    with pytest.raises(TypeError):
        task(fatal_on=bad)


@pytest.mark.parametrize("bad", [0, -2, 1.5, True, "3"])
def test_attempts_are_judged_at_decoration(bad):
    with pytest.raises(ValueError, match="max_attempts"):
        task(max_attempts=bad)
