"""URLs with what a queue overrides."""

from __future__ import annotations

import pytest
from google.cloud.tasks_v2 import UriOverride

from soc_tasks.engine.server.requests import override_url

FULL = "https://example.org:99/a/b?c=d"


@pytest.mark.parametrize(
    ("url", "override", "result"),
    [
        (FULL, {}, FULL),
        (FULL, {"scheme": "HTTP"}, "http://example.org:99/a/b?c=d"),
        (FULL, {"scheme": "SCHEME_UNSPECIFIED"}, FULL),
        (FULL, {"host": "other"}, "https://other:99/a/b?c=d"),
        (FULL, {"host": "other:7"}, "https://other:7/a/b?c=d"),
        (FULL, {"port": 8}, "https://example.org:8/a/b?c=d"),
        (FULL, {"port": 0}, "https://example.org/a/b?c=d"),
        (FULL, {"path_override": {"path": "/x"}}, "https://example.org:99/x?c=d"),
        (FULL, {"path_override": {"path": "x"}}, "https://example.org:99/x?c=d"),
        (FULL, {"path_override": {"path": ""}}, "https://example.org:99?c=d"),
        (FULL, {"query_override": {"query_params": "e=f"}}, "https://example.org:99/a/b?e=f"),
        (FULL, {"query_override": {"query_params": ""}}, "https://example.org:99/a/b"),
        ("http://[::1]:8/a", {"host": "[::2]"}, "http://[::2]:8/a"),
        ("http://[::1]/a", {"port": 9}, "http://[::1]:9/a"),
    ],
)
def test_overrides(url, override, result):
    assert override_url(url, UriOverride.pb(UriOverride(override))) == result


def test_only_what_the_task_does_not_say():
    given = {
        "scheme": "HTTP",
        "host": "other",
        "port": 8,
        "path_override": {"path": "/x"},
        "query_override": {"query_params": "e=f"},
        "uri_override_enforce_mode": "IF_NOT_EXISTS",
    }
    override = UriOverride.pb(UriOverride(given))
    assert override_url(FULL, override) == FULL
    assert override_url("https://example.org", override) == "https://example.org:8/x?e=f"
