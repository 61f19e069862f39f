"""The contract of backends, on each of them."""

from __future__ import annotations

import pytest

from soc_tasks.engine.server.tokens import Tokens
from tests.backends.sites.base import SETTINGS
from tests.backends.sites.cloud import cloud_site
from tests.backends.sites.databases import ON_SQLITE, empty_site, needs_databases, served_database, site_databases  # noqa: F401 - fixtures
from tests.backends.sites.local import embedded_site, memory_site
from tests.contracts import backend_site
from tests.contracts.backend import BackendContract

pytestmark = needs_databases
SITES = {"memory": memory_site, "embedded": embedded_site, "cloud_tasks": cloud_site}
if not ON_SQLITE:
    SITES = {"embedded": embedded_site}


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    """Give the path of a key: to make one takes longer than most tests."""
    path = str(tmp_path_factory.mktemp("key") / "key.pem")
    Tokens("", path)
    return path


@pytest.fixture
def site(request, settings, site_databases, key):  # noqa: F811 - the fixture of that name
    """Give a site on the backend that is asked for."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    backend_site.reset()
    with SITES[request.param](request) as site:
        yield site


@pytest.mark.parametrize("site", SITES, indirect=True)
class TestContract(BackendContract):
    """Runs it on the library's backends."""
