"""What a client of Datastore's asks for, counted where it leaves the process, in the units that Google bills."""

from __future__ import annotations

import threading
from collections import Counter

#: What is counted. `read`: entities looked up, there or not; `found`: whole entities that queries gave; `keys`: those
#: of which they gave keys or projections alone, small operations; `queries`: each costs a read at least, however few it
#: finds; `counts`: aggregations; `written` and `deleted`: mutations; `begins`, `commits`, `rollbacks`: transactions.
PARTS = ("read", "found", "keys", "queries", "counts", "written", "deleted", "begins", "commits", "rollbacks")


class Bill:
    """Counts the calls of a client.

    Args:
        client: the client; what it calls is replaced for its life, or until `close`.
    """

    def __init__(self, client):
        self._api = client._datastore_api
        self._calls = {}
        self._counted = Counter()
        self._lock = threading.Lock()
        for method, count in {
            "lookup": self._count_lookup,
            "run_query": self._count_query,
            "run_aggregation_query": self._count_aggregation,
            "commit": self._count_commit,
            "begin_transaction": lambda request, answer: self._add("begins"),
            "rollback": lambda request, answer: self._add("rollbacks"),
        }.items():
            self._watch(method, count)

    def _watch(self, method, count):
        call = self._calls[method] = getattr(self._api, method)

        def watched(*args, **kwargs):
            answer = call(*args, **kwargs)
            count(kwargs.get("request") or args[0], answer)
            return answer

        setattr(self._api, method, watched)

    def close(self):
        """Count no more."""
        for method, call in self._calls.items():
            setattr(self._api, method, call)

    def _add(self, part, number=1):
        with self._lock:
            self._counted[part] += number

    def _count_lookup(self, request, answer):
        self._add("read", len(request["keys"]))

    def _count_query(self, request, answer):
        results = answer.batch.entity_results
        whole = answer.batch.entity_result_type.name == "FULL"
        self._add("found" if whole else "keys", len(results))
        self._add("queries")

    def _count_aggregation(self, request, answer):
        self._add("counts")

    def _count_commit(self, request, answer):
        self._add("commits")
        for mutation in request["mutations"]:
            self._add("deleted" if "delete" in mutation else "written")

    def take(self):
        """Return what was counted since the last time."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return {part: counted[part] for part in PARTS}
