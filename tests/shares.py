"""Which tests a run leaves out, because another run, on another database or interpreter, has them.

- `--part N/OF`: of the functions of `DIVIDED`, the Nth part; for several databases.
- `--share N/OF`: every function, but of each that has several cases the Nth share of them; for several interpreters.
  All runs together have every case once, and every function on each interpreter. What is in `WHOLE` runs in each of
  them, and what is in `ONCE` in one.

Both leave out the same tests in every run: neither order nor seed matters.
"""

from __future__ import annotations

import zlib
from collections import defaultdict

#: What `--part` divides; contracts of states and backends are for each database as a whole.
DIVIDED = ("tests/logic/", "tests/views/")
#: Here the interpreter, or Django, is what may make a difference from case to case.
WHOLE = (
    "tests/logic/test_arguments",
    "tests/logic/test_codecs",
    "tests/logic/test_instances",
    "tests/logic/test_payloads",
    "tests/logic/test_querysets",
    "tests/logic/test_references",
    "tests/test_public_api",
    "tests/test_signatures",
    "tests/views/console/",
    "tests/views/test_decorators",
)
#: By share, in turn: what starts and kills processes, servers and browsers takes minutes, and does not depend on the
#: interpreter.
ONCE = (
    (
        "tests/chaos/",
        "tests/engine/server/test_serving.py",
        "tests/engine/test_checkpoints.py",
        "tests/engine/test_operation.py",
        "tests/engine/test_processes.py",
        "tests/engine/test_runserver.py",
        "tests/engine/test_simulated_day.py",
    ),
    (
        "tests/backends/test_emulator.py",
        "tests/browser/",
        "tests/datastore/",
        "tests/engine/test_store_model.py",
        "tests/examples/test_gazetteer_datastore.py",
        "tests/faults/",
        "tests/management/test_sandbox.py",
        "tests/state/test_contract.py::TestDatastore",
        "tests/test_packaging.py",
        "tests/test_sandbox.py",
    ),
)


def pytest_addoption(parser):
    """Let several runs have a part of the tests each."""
    parser.addoption("--part", default="1/1", help=f"N/OF: the Nth part of the functions in {' and '.join(DIVIDED)}")
    parser.addoption("--share", default="1/1", help="N/OF: every function, with the Nth share of its cases")


def function_of(item):
    """Return the id of a test without that of its case."""
    return item.nodeid.partition("[")[0]


def is_in_part(item, number, of):
    """Tell whether a test is of a part: all cases of a function are of one, whatever their ids."""
    return not item.nodeid.startswith(DIVIDED) or zlib.crc32(function_of(item).encode()) % of == number - 1


def find_share(items, number, of):
    """Return the tests of a share: of every `of` cases of a function, in their order, each share has one.

    Which one is left to chance, or a share would always have the same value of some parameter.
    """
    found, cases = set(), defaultdict(list)
    for item in items:
        once = next((place for place, paths in enumerate(ONCE) if item.nodeid.startswith(paths)), None)
        if once is not None:
            found |= {item} if once % of == number - 1 else set()
        elif hasattr(item, "callspec") and not item.nodeid.startswith(WHOLE):
            cases[function_of(item)].append(item)
        else:
            found.add(item)
    for function, its_cases in cases.items():
        # By place, not by id: ids may depend on the interpreter.
        its_cases.sort(key=lambda item: sorted(item.callspec.indices.items()))
        for place, item in enumerate(its_cases):
            turn = zlib.crc32(f"{function} {place // of}".encode())
            if (place + turn) % of == number - 1:
                found.add(item)
    return found


def pytest_collection_modifyitems(config, items):
    """Leave tests out that take minutes, unless `-m` names them, and those of other parts and shares."""
    part, share = (tuple(map(int, text.split("/"))) for text in (config.option.part, config.option.share))
    with_long = "long" in config.option.markexpr
    of_share = find_share(items, *share)
    kept, left_out = [], []
    for item in items:
        is_short = with_long or item.get_closest_marker("long") is None
        (kept if is_short and item in of_share and is_in_part(item, *part) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
