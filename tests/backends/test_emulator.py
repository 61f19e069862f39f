"""The backend cloud_tasks beside gcloud-tasks-emulator: enqueueing and running, as the contract has it."""

from __future__ import annotations

import pytest

from soc_tasks import startTask
from tests.backends.sites.base import SETTINGS
from tests.backends.sites.databases import empty_site, site_databases  # noqa: F401 - fixtures
from tests.backends.sites.emulator import emulator, emulator_site  # noqa: F401 - a fixture
from tests.contracts import backend_site
from tests.contracts.backend_attempts import AttemptsContract
from tests.contracts.backend_enqueue import EnqueueContract, LaterContract
from tests.contracts.backend_iterations import IterationsContract
from tests.contracts.backend_site import calls

pytestmark = pytest.mark.requires("gcloud-tasks-emulator")


@pytest.fixture
def site(request, settings, site_databases):  # noqa: F811 - the fixture of that name
    """Give a site beside the emulator."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    backend_site.reset()
    with emulator_site(request) as site:
        yield site


class TestContract(EnqueueContract, LaterContract, AttemptsContract, IterationsContract):
    """Runs the part of the contract that the emulator can keep."""


def test_a_name_is_not_kept(site):
    for _ in range(2):
        startTask("play", name="once")
    site.run()
    assert [call.info.name for call in calls] == ["once", "once"]


def test_its_calls_prove_nothing_where_app_engine_does_not_stand_before_the_site(site, monkeypatch):
    monkeypatch.delenv("GAE_ENV")
    startTask("play", None, "quick")
    refused = []
    application = site._front.site

    def note(environ, start_response):
        def begin(status, *more):
            refused.append(status)
            return start_response(status, *more)

        if len(refused) == 2:
            monkeypatch.setenv("GAE_ENV", "standard")
        return application(environ, begin)

    site._front.site = note
    site.run()
    assert refused == ["403 Forbidden", "403 Forbidden", "200 OK"]
    assert [call.info.retry_count for call in calls] == [2]


def test_an_outsider_is_not_let_in(site):
    assert site.post("/tasks/play/", b"", {}) == 403
    assert (calls, site.count()) == ([], 0)
