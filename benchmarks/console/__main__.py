"""`python -m benchmarks.console`: server time of each page of the console over a million tasks.

1,000,000 tasks wait in ten queues, 100,000 dead letters are kept, 500 iterations of 16 shards each. Each page is asked
for through the whole stack (middleware, session, admin, templates), without a network. Exits with 1 where the median of
a page is over 300 ms.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any

MOST_MS = 300.0
QUEUES = 10
#: Dead letters by their class, as shares of all.
KINDS = (("builtins.ValueError", 0.7), ("smtplib.SMTPServerDisconnected", 0.25), ("Exhausted", 0.05))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DJANGO_SETTINGS_MODULE="benchmarks.console.settings", DATABASE_PATH=f"{folder}/db.sqlite3")
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        started = time.perf_counter()
        fill(options)
        print(
            f"{options.tasks:,} tasks, {options.letters:,} dead letters, {options.iterations:,} iterations, written in "
            f"{time.perf_counter() - started:.0f} s; SQLite, {options.rounds} times each\n",
            flush=True,
        )
        return measure(options.rounds)


def fill(options: argparse.Namespace) -> None:
    from django.contrib.auth.models import User
    from django.db import connection

    from soc_tasks import startTask

    User.objects.create_superuser("admin", password="admin")
    startTask("/program/gsoc2009/email_all/", {"subject": "Welcome", "body": "It begins.", "n": 1}, name="the-first")
    now = int(time.time() * 1_000_000)
    with connection.cursor() as cursor:
        # A real one, many times: half of them due, in every queue.
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)"
            " INSERT INTO soc_tasks_engine_task (queue, name, state, due, path, script_name, headers, body, options,"
            " start_id, named, created, attempts, responses, busy, crashes, alone, progress, note)"
            " SELECT 'queue' || (i %% %s), printf('%%032x', i), 0, %s + (i - %s / 2) * 1000, path, script_name,"
            " headers, body, options, printf('%%032x', i), 0, created, i %% 3, i %% 3, 0, 0, 0, '', ''"
            " FROM n, (SELECT * FROM soc_tasks_engine_task LIMIT 1)",
            [options.tasks, QUEUES, now, options.tasks],
        )
    fill_letters(options.letters)
    fill_iterations(options.iterations)
    fill_rest(now)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def fill_letters(number: int) -> None:
    from soc_tasks.logic.tasks import build_task
    from soc_tasks.models import DeadLetterRow
    from soc_tasks.state.rows import write_task
    from soc_tasks.values import TaskRequest

    task, _ = build_task(TaskRequest(url="/program/gsoc2009/email_all/", context={"subject": "Welcome"}), "default")
    trace = "Traceback (most recent call last):\n" + '  File "a.py", line 1, in f\n    g()\n' * 20
    place = 0
    for kind, share in KINDS:
        rows = []
        for _ in range(round(number * share)):
            place += 1
            row = DeadLetterRow(
                attempts=50, error_type=kind, error=f"broken {place}", traceback=trace, iteration="",
            )  # fmt: skip
            write_task(task, row)
            row.queue = f"queue{place % QUEUES}"
            rows.append(row)
        DeadLetterRow.objects.bulk_create(rows, batch_size=2000)


def fill_iterations(number: int) -> None:
    from datetime import UTC, datetime

    from soc_tasks.models import FailedItemRow, IterationRow
    from soc_tasks.start_ids import make_start_id
    from soc_tasks.state import get_state
    from soc_tasks.state.base import IterationRecord, ShardRecord

    state, last = get_state(), ""
    for place in range(number):
        last = make_start_id()
        options = {"path": "/", "script_name": "", "inherited": {}, "context": "{}", "shards": 16}
        status = "running" if place >= number - 20 else "succeeded"
        record = IterationRecord(id=last, name="a.b.email_all", total=160_000, unfinished=16, options=options)
        shards = [
            ShardRecord(iteration=last, index=index, cursor=str(index), done=5000, context='{"subject": "Welcome"}')
            for index in range(16)
        ]
        state.create_iteration(record, shards)
        record.status = status
        record.finished = None if status == "running" else datetime.now(UTC)
        state.save_iteration(record)
    items = (
        FailedItemRow(
            iteration_id=last,
            shard=0,
            key=str(item),
            entity=f"a.B {item}",
            error_type="ValueError",
            created=datetime.now(UTC),
        )
        for item in range(10_000)
    )
    FailedItemRow.objects.bulk_create(items, batch_size=2000)
    assert IterationRow.objects.count() == number


def fill_rest(now: int) -> None:
    from datetime import UTC, datetime

    from soc_tasks.engine.models import QueueMinute
    from soc_tasks.models import AuditRow

    minute = now // 60_000_000 * 60_000_000
    QueueMinute.objects.bulk_create(
        QueueMinute(queue=f"queue{queue}", minute=minute - 60_000_000 * ago, succeeded=100, failed=ago % 5, spent=10**7)
        for ago in range(2 * 24 * 60)
        for queue in range(QUEUES)
    )
    AuditRow.objects.bulk_create(
        AuditRow(
            created=datetime.now(UTC), user_id="1", user="admin", action="pause queue", target="mail", outcome="ok"
        )
        for _ in range(10_000)
    )


def measure(rounds: int) -> int:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client

    client = Client()
    count: list[str] = []

    def keep(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        count.append(sql)
        return execute(sql, params, many, context)

    client.force_login(User.objects.get())
    slow = []
    print(f"{'page':<34}{'median':>11}{'highest':>11}{'of the CPU':>12}")
    for label, path in pages():
        count.clear()
        with connection.execute_wrapper(keep):
            answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        times, spent = [], []
        for _ in range(rounds):
            started, cpu = time.perf_counter(), time.process_time()
            client.get(path)
            times.append(1000 * (time.perf_counter() - started))
            spent.append(1000 * (time.process_time() - cpu))
        median = statistics.median(times)
        figures = f"{median:>8.0f} ms{max(times):>8.0f} ms{statistics.median(spent):>9.0f} ms"
        print(f"{label:<34}{figures}{len(count):>6} queries", flush=True)
        if median > MOST_MS:
            slow.append(label)
    print(f"\nover {MOST_MS:.0f} ms: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def pages() -> list[tuple[str, str]]:
    from django.urls import reverse

    from soc_tasks.logic.iterations import Iteration
    from soc_tasks.state import get_state

    def page(name: str, *args: Any) -> str:
        return reverse(f"admin:soc_tasks_console_{name}", args=args)

    letter = get_state().list_dead_letters(limit=1)[0].id
    return [
        ("overview", page("changelist")),
        ("queues", page("queues")),
        ("purge: count before", page("queue_purge", "queue3")),
        ("tasks", page("tasks")),
        ("tasks of a queue", page("tasks") + "?queue=queue3"),
        ("tasks, scheduled", page("tasks") + "?state=scheduled"),
        ("tasks by a whole name", page("tasks") + f"?name={500_000:032x}"),
        ("tasks by a part of a URL, none", page("tasks") + "?url=nothing"),
        ("tasks by a part of a context, none", page("tasks") + "?context=nothing"),
        ("a task", page("task", "queue0", f"{500_000:032x}")),
        ("iterations", page("iterations")),
        ("an iteration, 10,000 failed items", page("iteration", Iteration.all(limit=1)[0].id)),
        ("failures", page("failures")),
        ("failures of an error", page("failures") + "?error=Exhausted"),
        ("failures of a queue", page("failures") + "?queue=queue3"),
        ("failures by a text, none", page("failures") + "?text=nothing"),
        ("a failure", page("failure", letter)),
        ("retry all: count before", page("failures_all") + "?verb=retry"),
        ("retry a text: count before", page("failures_all") + "?verb=retry&text=broken"),
        ("start", page("start")),
        ("audit log", page("audit")),
    ]


if __name__ == "__main__":
    sys.exit(main())
