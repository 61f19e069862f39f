"""Model instances that arrive where a model, field or alias is another than it was."""

from __future__ import annotations

import json

import pytest
from django.apps.registry import Apps
from django.db import models

from soc_tasks import PayloadError, defer
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.payloads import UnknownNameError, dumps, loads
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen import functions
from tests.specimen.functions import note, two
from tests.specimen.models import Tag

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def arrive(tag, change):
    values = {"model": "specimen.Tag", "fields": {"id": 1, "name": "x"}, **change}
    return loads(dumps([None], more=Arguments()).replace("null", tag(values)), Arguments())


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"model": "specimen.Gone"}, "no model specimen.Gone"),
        ({"model": "gone.Tag"}, "no model gone.Tag"),
        ({"fields": {"id": 1, "colour": "red", "size": 1}}, "no field colour, size"),
        ({"using": "gone"}, "no database 'gone'"),
    ],
    ids=repr,
)
def test_a_model_field_or_alias_that_is_gone_waits_for_a_release(change, gone):
    with pytest.raises(UnknownNameError, match=gone):
        arrive(lambda values: json.dumps({"__soc__": "model", "v": values}), change)


def test_a_field_that_a_newer_release_has_is_deferred(django_assert_num_queries):
    tag = Tag.objects.create(name="x")
    [again] = arrive(
        lambda values: json.dumps({"__soc__": "model", "v": values}), {"fields": {"id": tag.pk}, "using": "default"}
    )
    with django_assert_num_queries(1):
        assert again.name == "x"


def test_a_call_with_a_model_that_is_gone_comes_again(task_queues, monkeypatch):
    functions.calls.clear()
    defer(two, Tag(name="x"))
    monkeypatch.setattr("soc_tasks.logic.instances.apps", Apps())
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert functions.calls == []
    assert get_state().list_dead_letters() == []


def test_an_instance_of_a_model_that_no_app_has_is_refused(task_queues):
    class Tag(models.Model):
        name = models.CharField(max_length=5)

        class Meta:
            app_label = "specimen"
            apps = Apps()

    with pytest.raises(PayloadError, match=r"args\[0\] is of a model that no app has"):
        defer(note, Tag(name="x"))
    task_queues.assertNumTasksEquals(0)
