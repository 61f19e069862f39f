"""A client that counts what it asks for: `SOC_TASKS["DATASTORE_CLIENT"]` of a site whose costs are looked at."""

from __future__ import annotations

import os

from google.cloud import datastore

from tests.datastore.bill import Bill

#: Of this process.
bills: list[Bill] = []


def make_client():
    """Return a client in the namespace of the site."""
    client = datastore.Client(project="demo", namespace=os.environ["BARE_NAMESPACE"])
    bills.append(Bill(client))
    return client


def take():
    """Return what was counted since the last time."""
    taken = [bill.take() for bill in bills]
    return {part: sum(one[part] for one in taken) for part in taken[0]}
