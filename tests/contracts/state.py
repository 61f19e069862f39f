"""What every state does: the same assertions on Django's databases and on Datastore.

A test module subclasses `StateContract` and gives the fixture `keeper`: an empty state, in force by the settings, with
`state`, `places` (where receipts and outboxes can be), `twice` (what is raised where a key is taken),
`end_leases(place)` and `age(what, key, days, place)`.
"""

from __future__ import annotations

import pytest

from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_figures import FiguresContract
from tests.contracts.state_iterations import IterationsContract
from tests.contracts.state_keeping import KeepingContract
from tests.contracts.state_ledger import LedgerContract
from tests.contracts.state_letters import LettersContract
from tests.contracts.state_records import RUN


class StateContract(LettersContract, IterationsContract, LedgerContract, FiguresContract, KeepingContract):
    """Assertions on `state`."""

    @pytest.fixture
    def state(self, keeper):
        return keeper.state

    @pytest.fixture
    def run(self, state):
        """An iteration with two shards, in the middle of its work."""
        shards = [ShardRecord(iteration=RUN, index=index, step=2, epoch=1, cursor=f"k{index}") for index in range(2)]
        state.create_iteration(IterationRecord(id=RUN, name="run", unfinished=2, total=5), shards)
        return RUN
