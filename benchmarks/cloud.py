"""`python -m benchmarks.cloud`: tasks created on a service by gRPC: by the official client as peers call it, and by us.

The service is a process that takes whatever comes and answers after a delay (a simulated round trip). Each figure is
the median of the rounds, with its ratio to the peers' way in the same round: tasks in a second, and processor time of
the calling process for each task, gRPC's own threads included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Calls in a second, and microseconds of processor time for a task.
Figure = tuple[float, float]
PEERS, ONE, BULK, SINGLY = (
    "official client, one by one",
    "startTask one by one",
    "startTasks",
    "startTasks without batches",
)


def serve(delay: float, batches: bool, tell: Any) -> None:
    """Answer every call after `delay` seconds; runs in a process of its own."""
    import asyncio

    import grpc
    from google.longrunning.operations_pb2 import Operation

    async def answer(request: bytes, context: Any) -> bytes:
        if delay:
            await asyncio.sleep(delay)
        return b""

    async def answer_batch(request: bytes, context: Any) -> bytes:
        if delay:
            await asyncio.sleep(delay)
        return Operation(name="operations/1", done=True).SerializeToString()

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            batch = details.method.endswith("/BatchCreateTasks")
            if batch and not batches:
                return None
            return grpc.unary_unary_rpc_method_handler(answer_batch if batch else answer)

    async def run() -> None:
        server = grpc.aio.server(handlers=(Handler(),))
        tell.send(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


def measure(count: int, work: Callable[[], object]) -> Figure:
    """Return the rate of `work`, which creates `count` tasks, and its processor time."""
    processor, begin = time.process_time(), time.perf_counter()
    work()
    return count / (time.perf_counter() - begin), (time.process_time() - processor) / count * 1e6


def make_peers_way(port: int) -> Callable[[int], None]:
    """Return what creates tasks as libraries on the official client do: a blocking call of wrapped messages each."""
    import grpc
    from django.urls import reverse
    from google.cloud import tasks_v2
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    transport = CloudTasksGrpcTransport(channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
    client = tasks_v2.CloudTasksClient(transport=transport)
    parent = client.queue_path("demo", "local", "default")

    def create(count: int) -> None:
        for number in range(count):
            task = tasks_v2.Task(
                http_request=tasks_v2.HttpRequest(
                    http_method=tasks_v2.HttpMethod.POST,
                    url="https://site.example" + reverse("noop"),
                    headers={"Content-Type": "application/json"},
                    body=json.dumps({"number": str(number)}).encode(),
                )
            )
            client.create_task(parent=parent, task=task)

    return create


@contextmanager
def running_service(delay: float, *, batches: bool) -> Iterator[int]:
    """Run a service, and give its port to this process's clients."""
    context = multiprocessing.get_context("spawn")
    hear, tell = context.Pipe()
    service = context.Process(target=serve, args=(delay, batches, tell), daemon=True)
    service.start()
    try:
        port = hear.recv()
        os.environ["TASKS_EMULATOR_HOST"] = f"127.0.0.1:{port}"
        yield port
    finally:
        service.kill()
        service.join()


def one_by_one(count: int) -> None:
    """Start tasks, each by a call of its own."""
    from soc_tasks import startTask

    for number in range(count):
        startTask("noop", {"number": str(number)})


def in_bulk(count: int) -> None:
    """Start tasks by one call."""
    from soc_tasks import startTasks

    startTasks([{"url": "noop", "context": {"number": str(number)}} for number in range(count)])


def run_round(delay: float, count: int) -> dict[str, Figure]:
    """Measure everything once, against new services."""
    figures: dict[str, Figure] = {}

    def take(name: str, way: Callable[[int], None], size: int) -> None:
        # Connected, and everything loaded.
        way(100)
        figures[name] = measure(size, lambda: way(size))

    # What waits for its answer takes its time: fewer of these.
    single = min(count, 200) if delay else count
    with running_service(delay, batches=True) as port:
        take(PEERS, make_peers_way(port), single)
        take(ONE, one_by_one, single)
        take(BULK, in_bulk, count)
    with running_service(delay, batches=False):
        take(SINGLY, in_bulk, count)
    return figures


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cloud")
    parser.add_argument("--tasks", type=int, default=5_000, help="tasks in a round (default: 5,000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument(
        "--delay", type=float, nargs="*", default=[0.0, 20.0], help="round trips in milliseconds (default: 0 20)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as folder:
        os.environ["SOC_TASKS_BENCH_DATABASE"] = str(Path(folder) / "bench.sqlite3")
        os.environ["SOC_TASKS_BENCH_BACKEND"] = "cloud_tasks"
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        print(f"Python {platform.python_version()}, {os.cpu_count()} processors, median of {options.rounds} rounds")
        for delay in options.delay:
            rounds = []
            for number in range(options.rounds):
                print(f"{delay:g} ms: round {number + 1} of {options.rounds}", file=sys.stderr)
                rounds.append(run_round(delay / 1000, options.tasks))
            show(delay, rounds)


def show(delay: float, rounds: list[dict[str, Figure]]) -> None:
    """Print a table."""
    print(f"\nround trip of {delay:g} ms")
    for name in rounds[0]:
        rates = [figures[name][0] for figures in rounds]
        times = [figures[name][1] for figures in rounds]
        faster = statistics.median(figures[name][0] / figures[PEERS][0] for figures in rounds)
        cheaper = statistics.median(figures[name][1] / figures[PEERS][1] for figures in rounds)
        print(
            f"{name:28} {statistics.median(rates):8,.0f}/s  [{min(rates):,.0f} - {max(rates):,.0f}] {faster:7.2f} x "
            f"{statistics.median(times):8,.0f} us [{min(times):,.0f} - {max(times):,.0f}] {cheaper:5.2f} x"
        )


if __name__ == "__main__":
    main()
