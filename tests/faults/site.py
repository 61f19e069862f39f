"""The views under faults: each leaves behind what it did, in the database or in the file that its context names."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading

from django.db import connection
from django.db.models import F
from django.urls import path

from soc_tasks import iterative_task, task
from tests.specimen.models import Row, Tag

BATCH = 10
MIB = 1024 * 1024


def write_line(context, *words):
    """Add a line to the file of a context, in one step."""
    file = os.open(context["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{' '.join(map(str, words))} {os.getpid()}\n".encode())
    finally:
        os.close(file)


@task(atomic=True, max_attempts=-1)
def effect(request):
    """Write a row."""
    Tag.objects.create(name=request.task.context["name"])


@task(max_attempts=-1)
def note(request):
    """Note that it began and that it ended."""
    context = request.task.context
    write_line(context, "began", context["name"])
    threading.Event().wait(context.get("seconds", 0))
    write_line(context, "ended", context["name"])


def count_rows(rows):
    """Count that rows were seen."""
    Row.objects.filter(pk__in=[row.pk for row in rows]).update(hits=F("hits") + 1)


@iterative_task(Row, atomic=True, batch_size=BATCH, time_limit=0.1)
def count(request, entities):
    """Count the rows that it sees."""
    threading.Event().wait(request.task.context.get("seconds", 0))
    count_rows(entities)


@iterative_task(Row, batch_size=BATCH, time_limit=0.1)
def visit(request, entities):
    """Note the rows that it sees."""
    context = request.task.context
    threading.Event().wait(context.get("seconds", 0))
    for row in entities:
        write_line(context, "row", row.pk)


# Ways to end a process.


def die(way):
    """End this process, or try to."""
    if way == "exit":
        os._exit(3)
    elif way == "signal":
        # In this very thread: sent to the process, it may come when the view has returned.
        signal.raise_signal(signal.SIGSEGV)
    elif way == "memory":
        # What the system does with one that takes too much.
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "address":
        ctypes.string_at(0)


@task(max_attempts=2)
def poison(request):
    """End the process."""
    context = request.task.context
    write_line(context, "began", context["name"])
    die(context["way"])


@iterative_task(Row, batch_size=BATCH, time_limit=60)
def poison_late(request, entities):
    """End the process in the third batch, that is at the row of that number."""
    context = request.task.context
    for row in entities:
        write_line(context, "row", row.pk)
        if row.pk == context["pk"]:
            die("exit")


@task(max_attempts=1)
def gorge(request):
    """Take more memory than there is: an error, and no end of the process."""
    write_line(request.task.context, "began", "gorge")
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * MIB, before[1]))
    try:
        bytearray(512 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@task(max_attempts=1)
def hang(request):
    """Never answer."""
    write_line(request.task.context, "began", request.task.context["name"])
    threading.Event().wait()


@task(atomic=True, max_attempts=1)
def hang_locked(request):
    """Never answer, in a transaction that has written."""
    write_line(request.task.context, "began", request.task.context["name"])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE specimen_row SET hits = hits")
    threading.Event().wait()


@iterative_task(Row, atomic=True, batch_size=BATCH, time_limit=0.1)
def hang_count(request, entities):
    """Never answer, in a batch's transaction."""
    count_rows(entities)
    write_line(request.task.context, "began", "batch")
    threading.Event().wait()


urlpatterns = [
    path("hang-count", hang_count, name="hang-count"),
    path("effect", effect, name="effect"),
    path("note", note, name="note"),
    path("count", count, name="count"),
    path("visit", visit, name="visit"),
    path("poison", poison, name="poison"),
    path("poison-late", poison_late, name="poison-late"),
    path("gorge", gorge, name="gorge"),
    path("hang", hang, name="hang"),
    path("hang-locked", hang_locked, name="hang-locked"),
]
