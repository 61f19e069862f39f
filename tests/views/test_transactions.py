"""What commits with what: receipts, ATOMIC_REQUESTS, and transactions that a view leaves broken."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connections, transaction

from soc_tasks import startTask
from soc_tasks.models import ReceiptRow
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests import site
from tests.specimen.models import Tag


@pytest.mark.django_db
@pytest.mark.parametrize("view", ["behave_atomic", "behave"])
def test_a_view_that_leaves_its_transaction_broken_is_not_done(task_queues, monkeypatch, view):
    if view == "behave":
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)

    def swallow(request, **_):
        Tag.objects.create(name="lost")
        try:
            with transaction.atomic(savepoint=False):
                raise IntegrityError
        except IntegrityError:
            return

    site.behaviours[view] = swallow
    startTask(view)
    with pytest.raises(TaskFailedError, match="to be rolled back"):
        task_queues.process_task_queues()
    assert Tag.objects.count() == 0
    assert ReceiptRow.objects.count() == 0


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_receipt_commits_after_the_other_aliases(task_queues, monkeypatch):
    monkeypatch.setitem(connections["other"].settings_dict, "ATOMIC_REQUESTS", True)
    broken = [True]
    commit = connections["other"].commit

    def fail_once():
        if broken:
            broken.clear()
            connections["other"].rollback()
            raise IntegrityError("the other database could not commit")
        commit()

    def write_both(request, **_):
        Tag.objects.create(name="here")
        Tag.objects.using("other").create(name="there")

    site.behaviours["behave_atomic"] = write_both
    startTask("behave_atomic")
    monkeypatch.setattr(connections["other"], "commit", fail_once)
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert (Tag.objects.count(), Tag.objects.using("other").count()) == (1, 1)
