"""The relay by URL: for queue and cron, and nobody else."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.urls import path

from soc_tasks.backends import get_backend, outbox
from soc_tasks.models import OutboxRow
from soc_tasks.values import DELIVERY_KEY, Delivery
from soc_tasks.views.relaying import relay
from tests.engine.tasks import make_task, names

urlpatterns = [path("relay/", relay)]
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.urls("tests.views.test_relaying"),
]


def refuse(tasks):
    return dict.fromkeys(range(len(tasks)), ValueError("not now"))


@pytest.fixture
def waiting(settings):
    """A task that a process which died has left in an outbox."""
    with transaction.atomic(using="other"):
        outbox.hold([make_task("/tasks/behave/", name="left")], "other", refuse)
    OutboxRow.objects.using("other").update(leased_until=None)


def test_outsiders_relay_nothing(client, waiting):
    for method in (client.get, client.post):
        assert method("/relay/").status_code == 403
    assert OutboxRow.objects.using("other").count() == 1


def test_the_queue_relays(client, waiting):
    response = client.post("/relay/", **{DELIVERY_KEY: Delivery(queue="default", name="relay")})
    assert (response.status_code, response.content) == (200, b"")
    assert OutboxRow.objects.using("other").count() == 0
    assert names(get_backend().list_tasks()) == ["left"]
