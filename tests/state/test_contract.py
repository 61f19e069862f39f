"""The contract of states: on Django's databases, and on both emulators of Datastore."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from soc_tasks.models import DeadLetterRow, OutboxRow, ReceiptRow
from soc_tasks.state import get_state
from soc_tasks.state.datastore_records import OUTBOX, RECEIPT
from soc_tasks.state.undone import UndoneError
from tests.contracts.state import StateContract
from tests.emulators import on_every_edition


class RowKeeper:
    """Lets time pass in Django's databases."""

    places = ("default", "other")
    twice = IntegrityError

    def __init__(self):
        self.state = get_state()

    def end_leases(self, place):
        OutboxRow.objects.using(place).update(leased_until=timezone.now() - timedelta(seconds=1))

    def age(self, what, key, days, place="default"):
        rows = {"letter": DeadLetterRow, "receipt": ReceiptRow}[what].objects.using(place)
        rows.filter(pk=key).update(created=timezone.now() - timedelta(days=days))


class EntityKeeper:
    """Lets time pass in Datastore."""

    twice = UndoneError

    def __init__(self):
        self.state = get_state()
        self.client = self.state.client
        self.places = (self.state.alias,)

    def end_leases(self, place):
        for entity in self.client.query(kind=OUTBOX).fetch():
            entity["leased_until"] = timezone.now() - timedelta(seconds=1)
            self.client.put(entity)

    def age(self, what, key, days, place=None):
        key = self.client.key(RECEIPT, key) if what == "receipt" else self.state._letter_key(key)
        entity = self.client.get(key)
        entity["expires"] -= timedelta(days=days)
        self.client.put(entity)


@pytest.mark.django_db(databases=["default", "other"])
class TestDjango(StateContract):
    @pytest.fixture
    def keeper(self, settings):
        settings.SOC_TASKS = {}
        return RowKeeper()


@on_every_edition
class TestDatastore(StateContract):
    @pytest.fixture
    def keeper(self, kinds, settings):
        settings.SOC_TASKS = {"STATE": "datastore", "DATASTORE_NAMESPACE": kinds.namespace}
        return EntityKeeper()
