"""What the pages cost: so many queries, answered from indexes, whatever there is."""

from __future__ import annotations

import time

import pytest
from django.db import connection

from soc_tasks import startTask
from soc_tasks.engine.models import QueuedTask
from soc_tasks.models import DeadLetterRow
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter
from soc_tasks.values import Task
from tests.plans import Watch
from tests.views.console.users import url

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="plans and steps are SQLite's"),
]

QUEUES = 5
#: Path of each page, and the most queries that it takes with five queues, those of session and user among them.
PAGES = {
    "queues": ("queues", "", 20),
    "tasks": ("tasks", "", 35),
    "of a queue": ("tasks", "?queue=queue1", 20),
    "scheduled": ("tasks", "?state=scheduled", 35),
    "running": ("tasks", "?state=running", 20),
    "by name": ("tasks", f"?name={7:032x}", 45),
    "by url": ("tasks", "?url=nothing", 45),
    "by context": ("tasks", "?context=nothing", 30),
    "iterations": ("iterations", "", 10),
    "failures": ("failures", "", 25),
    "of an error": ("failures", "?error=KeyError", 25),
    "of a queue, failed": ("failures", "?queue=queue1", 25),
    "by text": ("failures", "?text=nothing", 40),
    "all that match": ("failures_all", "?verb=retry", 10),
    "audit": ("audit", "", 10),
}


def fill(tasks, letters):
    """Have so many tasks, half of them due, and dead letters, of two classes."""
    QueuedTask.objects.all().delete()
    DeadLetterRow.objects.all().delete()
    startTask("behave", {"k": "v"}, name="first")
    [first] = QueuedTask.objects.all()
    now = int(time.time() * 1_000_000)
    rows = []
    for number in range(tasks):
        first.pk, first.queue, first.name = None, f"queue{number % QUEUES}", f"{number:032x}"
        first.due = now + (number - tasks // 2) * 10_000_000
        rows.append(QueuedTask(**{f.attname: getattr(first, f.attname) for f in first._meta.fields if f.name != "id"}))
    QueuedTask.objects.bulk_create(rows)
    get_state().add_dead_letter(
        DeadLetter(task=Task(queue="q", name="n", path="/x"), attempts=1, error_type="KeyError")
    )
    row = DeadLetterRow.objects.get()
    values = {
        f.attname: getattr(row, f.attname) for f in row._meta.fields if f.name not in ("id", "queue", "error_type")
    }
    DeadLetterRow.objects.bulk_create(
        DeadLetterRow(**values, queue=f"queue{number % QUEUES}", error_type=("KeyError", "ValueError")[number % 2])
        for number in range(letters)
    )
    with connection.cursor() as cursor:
        # An index of which nothing is known must not lead the planner astray.
        cursor.execute("ANALYZE")


@pytest.fixture
def short(monkeypatch):
    """Let pages, searches and counts end early, so that a few thousand rows are many."""
    monkeypatch.setattr("soc_tasks.views.console.tasks.PAGE_SIZE", 20)
    monkeypatch.setattr("soc_tasks.views.console.failures.PAGE_SIZE", 20)
    monkeypatch.setattr("soc_tasks.views.console.failures.CAP", 100)
    monkeypatch.setattr("soc_tasks.backends.embedded_inspection.LOOK_AT", 200)
    monkeypatch.setattr("soc_tasks.backends.embedded_inspection.LOOK_AT_BODIES", 200)
    monkeypatch.setattr("soc_tasks.backends.embedded_inspection._CHUNK", 100)
    monkeypatch.setattr("soc_tasks.backends.inspection.Inspector.cap", 100)
    monkeypatch.setattr("soc_tasks.logic.letter_pages.LOOK_AT", 200)
    monkeypatch.setattr("soc_tasks.logic.letter_pages._PAGE", 100)
    monkeypatch.setattr("soc_tasks.logic.letter_pages.count_letters.__kwdefaults__", {"up_to": None, "cap": 100})


def look(client, page, query):
    with Watch() as watch:
        assert client.get(url(page) + query).status_code == 200
    return watch


def test_no_page_costs_more_because_there_is_more(operator, short):
    steps = {}
    for size in (1500, 6000):
        fill(size, size)
        for label, (page, query, _) in PAGES.items():
            steps.setdefault(label, []).append(look(operator, page, query).steps)
    grown = {label: (small, large) for label, (small, large) in steps.items() if large > 1.2 * small + 500}
    assert grown == {}


def test_each_page_takes_a_few_queries_and_no_scan_of_a_table(operator, short):
    fill(500, 500)
    for label, (page, query, most) in PAGES.items():
        watch = look(operator, page, query)
        statements = [sql for sql, _ in watch.statements]
        assert len(statements) <= most, (label, len(statements), statements)
        scans = [
            line for line in watch.explain() if line.startswith("SCAN soc_tasks_engine_task") and "INDEX" not in line
        ]
        assert scans == [], label
