"""What every backend does, by what a site that uses it sees: the same assertions on each.

A test module subclasses `BackendContract` and gives the fixture `site` (tests/backends/sites/base.py): a site on one
backend, whose queues are empty and stand still until `site.run()`.
"""

from __future__ import annotations

from tests.contracts.backend_access import AccessContract
from tests.contracts.backend_attempts import AttemptsContract
from tests.contracts.backend_enqueue import EnqueueContract, LaterContract, RefusalContract
from tests.contracts.backend_inspection import InspectionContract
from tests.contracts.backend_iterations import IterationsContract
from tests.contracts.backend_steering import SteeringContract
from tests.contracts.backend_transactions import TransactionsContract
from tests.contracts.backend_verbs import VerbsContract


class BackendContract(
    EnqueueContract,
    LaterContract,
    RefusalContract,
    AttemptsContract,
    TransactionsContract,
    IterationsContract,
    AccessContract,
    SteeringContract,
    InspectionContract,
    VerbsContract,
):
    """Assertions on `site`."""
