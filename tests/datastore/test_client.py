"""The client that the settings ask for."""

from __future__ import annotations

import pytest
from google.cloud import datastore

from soc_tasks import ConfigurationError
from soc_tasks.state import get_state
from soc_tasks.state.datastore import get_client

ENVIRONMENT = {"DATASTORE_EMULATOR_HOST": "127.0.0.1:1", "GOOGLE_CLOUD_PROJECT": "of-the-environment"}


def make_client():
    """Return a client of one's own."""
    return datastore.Client(project="own", namespace="mine")


def make_nothing():
    """Return what is none."""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_it_is_made_of_project_database_and_namespace(settings):
    settings.SOC_TASKS = {
        "STATE": "datastore",
        "DATASTORE_PROJECT": "school",
        "DATASTORE_DATABASE": "tasks-2",
        "DATASTORE_NAMESPACE": "mine",
    }
    client = get_client()
    assert (client.project, client.database, client.namespace) == ("school", "tasks-2", "mine")
    assert get_client() is client is get_state().client
    assert get_state().alias == "datastore:school/tasks-2/mine"


def test_it_is_in_the_project_of_the_environment(settings):
    settings.SOC_TASKS = {"STATE": "datastore"}
    assert get_client().project == "of-the-environment"
    assert get_state().alias == "datastore:of-the-environment//"


def test_it_is_made_by_a_function(settings):
    settings.SOC_TASKS = {"STATE": "datastore", "DATASTORE_CLIENT": f"{__name__}.make_client"}
    assert get_state().alias == "datastore:own//mine"


@pytest.mark.parametrize(
    ("path", "message"),
    [(f"{__name__}.nothing", "cannot be imported"), (f"{__name__}.make_nothing", "returned None; it must return a")],
)
def test_a_function_that_makes_none_is_named(settings, path, message):
    settings.SOC_TASKS = {"STATE": "datastore", "DATASTORE_CLIENT": path}
    with pytest.raises(ConfigurationError, match=message):
        get_client()
