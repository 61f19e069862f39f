"""`python -m benchmarks.steps`: what each step of a task costs, in processor time, beside a request that does nothing.

The yardstick is a whole request in this process: Django's WSGI handler, no middleware, a view that returns an empty
response. All steps are measured in turns, in one thread, and the medians printed as Markdown.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

#: Calls of a step in one turn.
CALLS = 200
CONTEXT = {"student": 17, "name": "Ada", "tags": ["a", "b"]}


class Step(NamedTuple):
    """A step: what it is, what does it so many times at once, and what it needs around it."""

    title: str
    do: Callable[[], object]
    times: int = 1
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def make_request_steps() -> list[Step]:
    """Return what a call of a task is made of."""
    from django.db import connections
    from django.http import HttpResponse
    from django.urls import path

    from benchmarks import site
    from benchmarks.bare import make_asker
    from soc_tasks import logs, signals, startTask
    from soc_tasks.engine.attempts import Job, make_attempt
    from soc_tasks.engine.dispatch import InProcessDispatcher
    from soc_tasks.engine.keeping import keep_connections, requests_spared, tidy
    from soc_tasks.engine.store import get_store
    from soc_tasks.engine.verdicts import judge
    from soc_tasks.logic.forms import encode_context
    from soc_tasks.meta import Meta, write_plain
    from soc_tasks.start_ids import make_start_id

    site.urlpatterns.insert(0, path("nothing/", lambda _: HttpResponse()))
    startTask("noop")
    startTask("noop", CONTEXT)
    store = get_store("default")
    worker = store.join("benchmark", os.getpid(), 0)
    plain, typed = store.exchange(worker, [], 10)
    keep_connections()
    connections["default"].ensure_connection()
    dispatch = InProcessDispatcher(own_threads=True)

    def attempt(leased: Any) -> None:
        job = Job(leased)
        make_attempt(job, dispatch, store.clock, lambda: False, store.options())
        assert job.answer is not None
        tidy()
        judge(leased, job.answer, job.started, job.ended, store.options())

    def log() -> None:
        logs.log_task(queue="default", task="a", path="/noop/", attempt=1, outcome="done", status=200, seconds=0.001)

    def listen(**_: Any) -> None:
        return

    class Heard(AbstractContextManager[Any]):
        """Somebody listens."""

        def __enter__(self) -> None:
            signals.task_started.connect(listen)

        def __exit__(self, *_: object) -> None:
            signals.task_started.disconnect(listen)

    class Logged(AbstractContextManager[Any]):
        """Lines are formatted, and go nowhere."""

        def __enter__(self) -> None:
            self.handler = logging.StreamHandler(io.StringIO())
            logs.logger.addHandler(self.handler)
            logs.logger.setLevel(logging.INFO)

        def __exit__(self, *_: object) -> None:
            logs.logger.removeHandler(self.handler)
            logs.logger.setLevel(logging.NOTSET)

    start_id = make_start_id()
    full = Meta(start_id=start_id, json_keys=("student",)).to_header()
    return [
        Step("**a request that does nothing**", make_asker("/nothing/")),
        Step("**a call of a task**: request, view, answer, verdict", lambda: attempt(plain), around=requests_spared),
        Step("a call with a typed context", lambda: attempt(typed), around=requests_spared),
        Step("  its row made a task", plain.to_task),
        Step("  its header read, plain", lambda: Meta.from_header(write_plain(start_id))),
        Step("  its header read, with typed keys", lambda: Meta.from_header(full)),
        Step("  its log line", log, around=Logged),
        Step("  the same, while nobody logs", log),
        Step("  a signal", lambda: signals.task_started.send_robust(sender=None), around=Heard),
        Step("  the same, while nobody listens", lambda: signals.task_started.send_robust(sender=None)),
        Step("  a context made a form", lambda: encode_context(CONTEXT)),
    ]


def make_starting_steps() -> list[Step]:
    """Return what starting is made of."""
    from django.db import transaction

    from benchmarks.contenders import work
    from soc_tasks import defer, startTask, startTasks
    from soc_tasks.logic import calls
    from soc_tasks.logic.urls import resolve_target

    call = calls.Call(function=work.noop, args=work.arguments(1), kwargs={})
    text = calls.write_call(call).text
    signature = calls.sign(text)
    arguments = work.arguments(1)
    return [
        Step("**`startTask`**, committed", lambda: startTask("noop")),
        Step("`startTask` in a transaction", lambda: startTask("noop"), around=transaction.atomic),
        Step("the same with a typed context", lambda: startTask("noop", CONTEXT), around=transaction.atomic),
        Step("`startTasks`, each of 200", lambda: startTasks([{"url": "noop"}] * CALLS), times=CALLS),
        Step("  its URL resolved", lambda: resolve_target("noop")),
        Step("**`defer`** in a transaction", lambda: defer(work.noop, *arguments), around=transaction.atomic),
        Step("  its arguments written", lambda: calls.write_call(call)),
        Step("  its signature made", lambda: calls.sign(text)),
        Step("  its signature judged", lambda: calls.is_signed(text, signature)),
        Step("  its arguments read", lambda: calls.read_call(text)),
    ]


def measure(step: Step) -> float:
    """Return microseconds of processor time that a step takes once."""
    rounds = max(1, CALLS // step.times)
    with step.around():
        begin = time.process_time()
        for _ in range(rounds):
            step.do()
        return (time.process_time() - begin) / rounds / step.times * 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each step (default: 15)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as name:
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        os.environ["SOC_TASKS_BENCH_DATABASE"] = str(Path(name) / "bench.sqlite3")
        os.environ["SOC_TASKS_BENCH_MARKS"] = str(Path(name) / "marks")
        import django
        from django.core.management import call_command

        from benchmarks import marks

        marks.create(Path(name) / "marks")
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        steps = [*make_request_steps(), *make_starting_steps()]
        for step in steps:
            measure(step)
        taken = [[measure(step) for step in steps] for _ in range(options.rounds)]
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    print("| step | processor time | of a request |\n|---|---|---|")
    for number, step in enumerate(steps):
        spent = statistics.median(turn[number] for turn in taken)
        ratio = statistics.median(turn[number] / turn[0] for turn in taken)
        title = f"&nbsp;&nbsp;{step.title.strip()}" if step.title.startswith(" ") else step.title
        print(f"| {title} | {spent:.1f} µs | {ratio:.2f} |")


if __name__ == "__main__":
    main()
