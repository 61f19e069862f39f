"""Workers killed again and again, a queue that doubles, delays and shuffles: nothing is lost or doubled."""

from __future__ import annotations

import json

import pytest

from tests.databases import VENDORS

pytestmark = [pytest.mark.chaos, pytest.mark.requires("sigkill")]

#: Seconds after which an iteration is taken for lost, in the short form and in the long one.
SHORT, LONG = 100, 900
#: What the queue does, see transport.py.
TRANSPORTS = {
    "5%": {"doubled": 0.05, "delayed": 0.25},
    "50%": {"doubled": 0.5, "delayed": 0.05},
    "x10": {"doubled": 1.0, "copies": 10},
}


def check(note_figure, site, name, seed, rows, batch, transport, least, longest, life):
    site.environment |= {
        "SOC_TASKS_CHAOS_SEED": str(seed),
        "SOC_TASKS_CHAOS_FAULTS": json.dumps(TRANSPORTS[transport]),
        "SOC_TASKS_CHAOS_BATCH": str(batch),
        # A batch that is not atomic is kept from others for so long when its worker was killed.
        "SOC_TASKS_CHAOS_LEASE": "0.4",
    }
    options = {"name": name, "rows": rows, "seed": seed, "seconds": longest, "life": life}
    found = site.ask("tests.chaos.kill_run", timeout=longest + 120, **options)
    kills, seconds, doubled = (found.pop(key) for key in ("kills", "seconds", "doubled"))
    note_figure(
        f"kill run {site.vendor:10} {name} {transport:>3}",
        seed=seed,
        rows=rows,
        batch=batch,
        kills=kills,
        lost=found["lost"],
        doubled=doubled,
        ends=found["ends"],
        seconds=seconds,
    )
    assert found == {
        "status": "succeeded", "unfinished": 0, "done": rows, "lost": 0, "ends": 1, "left": 0, "letters": 0,
    }  # fmt: skip
    assert doubled <= (0 if name == "atomic" else kills * batch)
    assert kills >= least


@pytest.mark.parametrize("chaos_site", VENDORS, indirect=True)
@pytest.mark.parametrize(("name", "transport"), [("atomic", "5%"), ("leased", "50%")])
def test_nothing_is_lost_or_doubled(chaos_site, name, transport, note_figure):
    # Many more batches of the one than of the other are done in a life; and on SQLite than on a server.
    rows = (4_000 if name == "atomic" else 2_000) * (2 if chaos_site.vendor == "sqlite" else 1)
    check(note_figure, chaos_site, name, 1, rows, 20, transport, least=3, longest=SHORT, life=(0.1, 0.25))


@pytest.mark.long
@pytest.mark.parametrize("chaos_site", VENDORS, indirect=True)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["atomic", "leased"])
def test_nothing_is_lost_or_doubled_of_many(chaos_site, name, transport, note_figure):
    # The faster a database, the more batches there must be for as many kills. One that is not atomic and was killed
    # keeps others out until its lease ends: fewer of those.
    batch = (50 if chaos_site.vendor == "mariadb" else 100) * (1 if name == "atomic" else 4)
    check(note_figure, chaos_site, name, 7, 100_000, batch, transport, least=50, longest=LONG, life=(0.2, 0.5))
