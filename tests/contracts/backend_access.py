"""The queue gets in, and nobody else."""

from __future__ import annotations

import pytest

from soc_tasks import startTask
from soc_tasks.meta import Meta
from tests.contracts.backend_site import calls

META = {"X-SocTasks-Meta": Meta(start_id="0" * 32).to_header()}
FORGED = [
    {},
    META,
    {**META, "X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "made"},
    {**META, "X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "made"},
    {**META, "X-CloudTasks-QueueName": "default", "Authorization": "Bearer e30.e30.e30"},
    {**META, "X-SocTasks-Delivery": "{}", "X-SocTasks-Signature": "v1=" + "0" * 64},
]


class AccessContract:
    """Assertions on who runs a task."""

    @pytest.mark.parametrize("path", ["/tasks/play/", "/tasks/play-for-people/", "/tasks/visit/"])
    def test_an_outsider_runs_nothing_and_queues_nothing(self, site, path):
        for headers in FORGED:
            assert site.post(path, b"a=b", headers) == 403
        assert (calls, site.count()) == ([], 0)

    def test_the_queue_is_let_in_where_people_are_as_well(self, site):
        startTask("play_for_people")
        site.run()
        assert len(calls) == 1
        assert site.post("/tasks/play-for-people/", b"", {}) == 403
        assert len(calls) == 1

    def test_headers_of_a_call_that_was_good_prove_nothing(self, site):
        startTask("play", {"a": "b"})
        site.run()
        [call] = calls
        again = {name: value for name, value in call.headers.items() if name not in ("Host", "Content-Length")}
        proof = again.pop("Authorization", None)
        assert site.post("/tasks/play/", b"a=b", again) == 403
        # Where a token is the proof, it is: good for an hour, as Google's are.
        assert (proof is not None) == site.sends_tokens
        assert len(calls) == 1
