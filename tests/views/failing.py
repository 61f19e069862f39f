"""Callbacks of which some fail, and what became of them; for `from tests.views.failing import ...`."""

from __future__ import annotations

from soc_tasks import Iteration, defer_iteration_with_finalize, iterative_task, startTask
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen import iterating
from tests.specimen.iterating import callback, finalize
from tests.specimen.models import Row, Tag
from tests.views.calls import route


class View:
    """An iterative view that leaves a trace of each entity, and fails for those that are bad.

    Attributes:
        bad: primary keys of those that it fails for; a test may change them.
        batches: the primary keys of each batch that it was given.
    """

    def __init__(self, bad, error=None, **options):
        self.bad, self.error, self.batches = {row.pk for row in bad}, error or ValueError("on purpose"), []
        options = {"logic": Row, "batch_size": 16, "on_error": "skip", **options}
        self.view = iterative_task(options.pop("logic"), **options)(self.work)

    def work(self, request, entities, context):
        self.batches.append([entity.pk for entity in entities])
        for entity in entities:
            if entity.pk in self.bad:
                context["spoilt"] = True
                # Anew: one that is raised again drags its traceback along.
                raise type(self.error)(*self.error.args)
            Tag.objects.create(name=str(entity.pk))
        assert "spoilt" not in context

    def run(self, task_queues, behaviour=TaskFailedBehaviour.RAISE_ERROR, context=None, **options):
        with route(self.view):
            handle = startTask(self.view, context, **options)
            task_queues.process_task_queues(failure_behaviour=behaviour)
        return Iteration.get(handle.iteration)


def defer(task_queues, function=callback, behaviour=TaskFailedBehaviour.RAISE_ERROR, end=finalize, **options):
    """Run a deferred iteration over the rows that skips what fails."""
    options = {"_on_error": "skip", "_batch_size": 16, "_shards": 1, **options}
    handle = defer_iteration_with_finalize(Row.objects.all(), function, end, **options)
    task_queues.process_task_queues(failure_behaviour=behaviour)
    return Iteration.get(handle.iteration)


def fail_for(*bad, error=ValueError):
    """Have the callback fail for these; return the list of its failures."""
    keys, tried = {row.pk for row in bad}, []

    def fail(instance):
        if instance.pk in keys:
            tried.append(instance.pk)
            raise error("on purpose")

    iterating.acts["callback"] = fail
    return tried


def traces():
    """Return the primary keys of which a trace was left, in order."""
    return sorted(int(name) for name in Tag.objects.values_list("name", flat=True))


def ledger(iteration):
    return [item.entity for item in iteration.failed_items()]


def names(rows):
    return [f"{type(row)._meta.label} {row.pk}" for row in rows]
