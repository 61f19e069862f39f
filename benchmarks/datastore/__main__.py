"""`python -m benchmarks.datastore`: a kind read as a whole, by Datastore's client and by getBatchOfData.

The client's own ways are the floor: `query.fetch()` in one go, and in pages of the same size by cursors, as one who
must be able to go on elsewhere has to. Each figure is the median of the rounds, with its ratio to the pages of the same
order in the same round. Then batches that write, see writes.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import django

from examples.emulators import COMMANDS, PROJECT, VARIABLE, Emulator

ONE_GO, PAGES, KEYS, PROPERTY_PAGES, PROPERTY, RANGES = (
    "by key: query.fetch, one go",
    "by key: query.fetch, pages",
    "by key: getBatchOfData",
    "by a property: query.fetch, pages",
    "by a property: getBatchOfData",
    "eight key ranges",
)


def fill(client: Any, count: int) -> None:
    """Put entities such as a site has."""
    from google.cloud import datastore

    for first in range(0, count, 500):
        entities = []
        for number in range(first, min(first + 500, count)):
            entity = datastore.Entity(client.key("City", number + 1), exclude_from_indexes=("notes",))
            entity.update(name=f"city {number}", country=number % 240, population=number * 37 % 9973, notes="x" * 200)
            entities.append(entity)
        client.put_multi(entities)


def read_in_one_go(client: Any, size: int) -> int:
    return sum(1 for _ in client.query(kind="City", order=["__key__"]).fetch())


def read_pages(order: str) -> Callable[[Any, int], int]:
    def read(client: Any, size: int) -> int:
        total, cursor = 0, None
        while True:
            results = client.query(kind="City", order=[order]).fetch(limit=size, start_cursor=cursor)
            found = len(list(results))
            total, cursor = total + found, results.next_page_token
            if found < size or cursor is None:
                return total

    return read


def read_batches(order: str | None) -> Callable[[Any, int], int]:
    def read(client: Any, size: int) -> int:
        from soc_tasks import DatastoreLogic

        logic = DatastoreLogic("City", client, order_field=order, batch_size=size)
        total, key = 0, None
        while True:
            entities, key = logic.getBatchOfData(start_key=key)
            total += len(entities)
            if key is None:
                return total

    return read


def divide(client: Any, size: int) -> int:
    from soc_tasks import DatastoreLogic

    assert len(DatastoreLogic("City", client).find_key_ranges(8)) == 8
    return -1


WAYS: dict[str, Callable[[Any, int], int]] = {
    ONE_GO: read_in_one_go,
    PAGES: read_pages("__key__"),
    KEYS: read_batches(None),
    PROPERTY_PAGES: read_pages("population"),
    PROPERTY: read_batches("population"),
    RANGES: divide,
}


def measure(edition: str, count: int, size: int, rounds: int) -> None:
    """Measure everything on one emulator, and print a table."""
    from google.cloud import datastore

    emulator = Emulator(edition)
    try:
        os.environ[VARIABLE] = emulator.wait().host
        client = datastore.Client(project=PROJECT)
        fill(client, count)
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        processor: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(rounds + 1):
            print(f"{edition}: round {number} of {rounds}", file=sys.stderr)
            # By turns: what the machine does beside this meets all alike.
            for name in list(WAYS) if number % 2 else reversed(WAYS):
                begun, used = time.perf_counter(), time.process_time()
                found = WAYS[name](client, size)
                if number:  # the first warms Java up
                    taken[name].append(time.perf_counter() - begun)
                    processor[name].append(time.process_time() - used)
                assert found in (count, -1), f"{name} read {found} of {count}"
        client.close()
    finally:
        emulator.end()
    print(f"\n{edition} emulator, {count:,} entities in batches of {size}")
    for name, seconds in taken.items():
        floors = taken[PROPERTY_PAGES if name == PROPERTY else PAGES]
        ratio = statistics.median(floor / mine for floor, mine in zip(floors, seconds, strict=True))
        rates = [count / one for one in seconds]
        print(
            f"{name:33} {statistics.median(rates):8,.0f}/s  [{min(rates):,.0f} - {max(rates):,.0f}] {ratio:6.2f} x"
            f"  {statistics.median(seconds):6.2f} s, of this process {statistics.median(processor[name]):.2f} s"
        )


def measure_writes(edition: str, rounds: int) -> None:
    """Measure batches that write on one emulator, and print a table."""
    emulator = Emulator(edition)
    try:
        os.environ[VARIABLE] = emulator.wait().host
        from benchmarks.datastore import writes
        from soc_tasks.state.datastore import get_client

        client = get_client()
        writes.fill(client)
        taken: dict[str, list[float]] = {name: [] for name in writes.WAYS}
        for number in range(rounds + 1):
            print(f"{edition}, writes: round {number} of {rounds}", file=sys.stderr)
            for name in list(writes.WAYS) if number % 2 else reversed(writes.WAYS):
                seconds = writes.WAYS[name](client)
                if number:
                    taken[name].append(seconds)
    finally:
        emulator.end()
    print(f"\n{edition} emulator, batches of {writes.SIZE} entities that are written")
    for name, seconds in taken.items():
        ratios = [
            statistics.median(floor / mine for floor, mine in zip(taken[other], seconds, strict=True))
            for other in (writes.PUT, writes.LOOP)
        ]
        print(
            f"{name:33} {statistics.median(seconds) * 1000:6,.0f} ms"
            f"  [{min(seconds) * 1000:,.0f} - {max(seconds) * 1000:,.0f}]"
            f" {ratios[0]:6.2f} x {writes.PUT} {ratios[1]:6.2f} x {writes.LOOP}"
        )


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datastore")
    parser.add_argument("--editions", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--entities", type=int, default=10_000, help="default: 10,000")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1000], help="of batches (default: 100 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--writes", action=argparse.BooleanOptionalAction, default=True, help="measure them as well")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.datastore.settings"
    os.environ["GOOGLE_CLOUD_PROJECT"] = PROJECT
    django.setup()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, median of {options.rounds} rounds")
    for edition in options.editions:
        if missing := Emulator.missing(edition):
            print(f"{edition} left out, missing: {missing}")
            continue
        for size in options.sizes:
            measure(edition, options.entities, size, options.rounds)
        if options.writes:
            measure_writes(edition, options.rounds)


if __name__ == "__main__":
    main()
