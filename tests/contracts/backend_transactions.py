"""A task of an atomic block exists if and only if the block commits, on each alias."""

from __future__ import annotations

import pytest
from django.db import transaction

from soc_tasks import QueueNotFoundError, TaskAlreadyExistsError, startTask, startTasks
from soc_tasks.state import get_state
from tests.contracts.backend_site import acts, calls
from tests.engine.tasks import rolled_back
from tests.specimen.models import Tag

#: And what `using` says for it.
on_each_alias = pytest.mark.parametrize(("alias", "using"), [("default", None), ("other", "other")])


def ran():
    return sorted(call.kwargs["slug"] for call in calls)


def start(slug, using=None, **more):
    return startTask("play_slug", url_kwargs={"slug": slug}, using=using, **more)


class TransactionsContract:
    """Assertions on tasks and transactions."""

    @on_each_alias
    def test_a_task_is_there_when_its_block_has_committed(self, site, alias, using):
        with transaction.atomic(using=alias):
            Tag.objects.using(alias).create(name="kept")
            start("one", using)
            startTasks([{"url": "play_slug", "url_kwargs": {"slug": "two"}}], using=using)
            assert site.count() == 0
        assert site.count() == 2
        site.run()
        assert ran() == ["one", "two"]

    @on_each_alias
    def test_a_block_that_rolls_back_leaves_no_task(self, site, alias, using):
        with rolled_back(using=alias):
            start("lost", using)
        assert site.count() == 0
        site.run()
        assert ran() == []

    @on_each_alias
    def test_a_nested_block_takes_its_tasks_with_it(self, site, alias, using):
        with transaction.atomic(using=alias):
            start("before", using)
            with rolled_back(using=alias):
                start("lost", using)
            with transaction.atomic(using=alias):
                start("inside", using)
            start("after", using)
        site.run()
        assert ran() == ["after", "before", "inside"]

    @on_each_alias
    def test_without_a_block_a_task_is_there_at_once(self, site, alias, using):
        start("now", using)
        assert site.count() == 1
        site.run()
        assert ran() == ["now"]

    def test_a_block_of_another_alias_does_not_hold_a_task_back(self, site):
        with rolled_back(using="other"):
            start("kept", "default")
            assert site.count() == 1
        site.run()
        assert ran() == ["kept"]

    @on_each_alias
    def test_a_name_is_taken_within_the_block(self, site, alias, using):
        with transaction.atomic(using=alias):
            start("first", using, name="once")
            for other in (using, "default", "other"):
                with pytest.raises(TaskAlreadyExistsError, match="once"):
                    start("second", other, name="once")
        site.run()
        assert ran() == ["first"]

    @on_each_alias
    def test_a_name_of_a_block_that_rolled_back_is_free(self, site, alias, using):
        with rolled_back(using=alias):
            start("lost", using, name="once")
        start("kept", using, name="once")
        site.run()
        assert ran() == ["kept"]

    @on_each_alias
    def test_a_refusal_leaves_the_block_as_it_was(self, site, alias, using):
        with transaction.atomic(using=alias):
            start("first", using)
            with pytest.raises(QueueNotFoundError):
                start("second", using, queue="nowhere")
            Tag.objects.using(alias).create(name="kept")
        site.run()
        assert ran() == ["first"]
        assert Tag.objects.using(alias).count() == 1

    def test_an_atomic_task_commits_with_what_it_starts(self, site):
        def fail(request):
            Tag.objects.create(name="lost")
            start("lost")
            raise ValueError("the first time")

        def succeed(request):
            Tag.objects.create(name="kept")
            start("kept")

        acts.extend([fail, succeed])
        startTask("play_atomic", None, "quick")
        site.run()
        assert [call.kwargs.get("slug") for call in calls] == [None, None, "kept"]
        assert [tag.name for tag in Tag.objects.all()] == ["kept"]
        assert get_state().list_dead_letters() == []
