"""The backend on Cloud Tasks, and a service that it talks to; and what is left out on a database server."""

from __future__ import annotations

import grpc
import pytest

from soc_tasks.backends import get_backend
from soc_tasks.backends.cloud_tasks.backend import CloudTasksBackend
from soc_tasks.backends.cloud_tasks.service import Service
from tests.backends.fake_service import FakeService
from tests.backends.sites.databases import ON_SQLITE

#: It has databases of its own, and says nothing of the site's.
collect_ignore = [] if ON_SQLITE else ["test_emulator.py"]


@pytest.fixture
def fake():
    """Give a service; it is told what to do wrong."""
    fake = FakeService()
    yield fake
    fake.stop()


@pytest.fixture
def backend(fake, settings, monkeypatch):
    """Give the backend, talking to the fake; it does not wait between tries."""
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "europe-west1"
    monkeypatch.setenv("TASKS_EMULATOR_HOST", fake.address)
    channel = grpc.insecure_channel(fake.address)
    service = Service(channel, sleep=lambda seconds: None)
    monkeypatch.setattr("soc_tasks.backends.cloud_tasks.backend.get_service", lambda: service)
    backend = get_backend()
    assert isinstance(backend, CloudTasksBackend)
    yield backend
    channel.close()
