"""`make screenshots`: pictures of every page of the console, light, dark and as wide as a phone.

They go to docs/screenshots. It fills a database of its own with what such pages have to show: a queue that is full and
one that is paused, long names, iterations that run, wait and failed, failures of several kinds. Nothing
runs but the site itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "screenshots"
OPTIONS = ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
#: Name of a set of pictures, its width and height, and whether it is dark.
KINDS = (("light", 1280, 800, False), ("dark", 1280, 800, True), ("phone", 390, 844, False))
#: How often the same text is in what fails.
FAILURES = (
    ("smtplib.SMTPServerDisconnected", "Connection unexpectedly closed", 34),
    ("examples.email_students.models.Student.DoesNotExist", "Student matching query does not exist.", 12),
    ("ValueError", "invalid literal for int() with base 10: 'twelve'", 3),
)


def main() -> int:
    """Take all pictures; return the exit status."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("There is no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            DJANGO_SETTINGS_MODULE="settings_example",
            DATABASE_PATH=f"{folder}/db.sqlite3",
            DEBUG="1",
            TASKS_RUNSERVER="0",
        )
        pages = set_up()
        with serve() as base:
            take(chromium, base, pages)
    return 0


def set_up() -> dict[str, str]:
    """Make tables and data; return the pages by the names of their pictures."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.urls import reverse

    call_command("migrate", verbosity=0)
    get_user_model().objects.create_superuser("admin", "admin@example.org", "admin")
    running, failed = fill()
    from soc_tasks.state import get_state

    def page(name: str, *args: Any) -> str:
        return reverse(f"admin:soc_tasks_console_{name}", args=args)

    return {
        "overview": page("changelist"),
        "queues": page("queues"),
        "purge": page("queue_purge", "default"),
        "tasks": page("tasks"),
        "task": page("task", "default", "rebuild-the-search-index"),
        "iterations": page("iterations"),
        "iteration": page("iteration", running),
        "iteration-failed": page("iteration", failed),
        "failures": page("failures"),
        "failure": page("failure", get_state().list_dead_letters(limit=1)[0].id),
        "start": page("start"),
        "start-task": f"{page('start_task')}?route=/program/%3Cslug:slug%3E/email_all/",
        "audit": page("audit"),
        "empty": f"{page('tasks')}?name=nothing-is-called-so",
    }


def fill() -> tuple[str, str]:
    """Make tasks, iterations, failures and the log; return the ids of two iterations."""
    from soc_tasks import startTask, startTasks
    from soc_tasks.backends import get_backend
    from soc_tasks.state.audit import begin_entry

    url = "/program/gsoc2009/email_all/"
    context = {"subject": "Welcome", "body": "It begins on Monday.", "api_token": "not to be seen", "round": 3}
    startTask(url, context, name="rebuild-the-search-index")
    startTask(
        f"/program/{'a-program-with-a-name-that-is-much-longer-than-anybody-would-have-thought-' * 2}x/email_all/",
        name="a-name-that-goes-on-and-on-" * 6,
    )
    startTasks({"url": url, "context": context, "countdown": 60.0 * (1 + number % 50)} for number in range(230))
    startTasks([{"url": url, "context": context} for _ in range(80)], "mail")
    get_backend().pause("mail")
    fill_minutes()
    fill_letters(url)
    for action, target, outcome in (
        ("start task", f"{url} (examples.email_students.tasks.email_all)", "The task is in queue default."),
        ("retry failures", "error 'ValueError', up to 49", "18 dead letters were queued again."),
        ("purge queue", "mail", "1,204 tasks were deleted from queue mail."),
        (
            "run task now",
            "default/nightly (/gazetteer/count/)",
            "refused: The task nightly runs already, or has ended.",
        ),
        ("pause queue", "mail", "The queue mail is paused; what runs already goes on."),
    ):
        begin_entry("1", "admin", action, target, outcome)
    return fill_iterations(url)


def fill_minutes() -> None:
    """Write down what would have come of an hour's tasks."""
    from soc_tasks.engine.models import QueueMinute

    now = int(datetime.now(UTC).timestamp()) // 60 * 60
    QueueMinute.objects.bulk_create(
        QueueMinute(
            queue="default",
            minute=(now - 60 * ago) * 1_000_000,
            succeeded=300 + (ago * 37) % 140 - 3 * ago,
            failed=(ago * 7) % 11 if ago % 9 == 0 or ago < 6 else 0,
            spent=9_000_000,
        )
        for ago in range(58)
    )


def fill_letters(url: str) -> None:
    """Make failures of several kinds."""
    from soc_tasks.logic.tasks import build_task
    from soc_tasks.state import get_state
    from soc_tasks.state.base import DeadLetter
    from soc_tasks.values import TaskRequest

    trace = 'Traceback (most recent call last):\n  File "examples/email_students/tasks.py", line 33, in email_all\n'
    for kind, error, number in FAILURES:
        for place in range(number):
            context = {"subject": "Welcome", "student": 4000 + place, "password": "not to be seen"}
            task, _ = build_task(TaskRequest(url=url, context=context), "default")
            traceback = f"{trace}{kind}: {error}\n"
            letter = DeadLetter(task=task, attempts=50, error_type=kind, error=error, traceback=traceback)
            get_state().add_dead_letter(letter)


def fill_iterations(url: str) -> tuple[str, str]:
    """Make iterations of every status; return the ids of one that runs and one that failed."""
    from soc_tasks.models import IterationRow
    from soc_tasks.start_ids import make_start_id
    from soc_tasks.state import get_state
    from soc_tasks.state.base import IterationRecord, ShardRecord
    from soc_tasks.values import FailedItem

    state, now = get_state(), datetime.now(UTC)
    ids = {}
    name = "examples.email_students.tasks.email_all"
    for status in ("succeeded", "failed", "paused", "running"):
        start_id = ids[status] = make_start_id()
        options = {"path": url, "script_name": "", "inherited": {}, "context": "{}", "shards": 8}
        record = IterationRecord(id=start_id, name=name, total=80_000, unfinished=8, options=options)
        shards = [
            make_shard(ShardRecord(iteration=start_id, index=index, expected=10_000), status, now) for index in range(8)
        ]
        state.create_iteration(record, shards)
        record.status = status
        record.finished = now if status in ("succeeded", "failed") else None
        if status == "failed":
            record.error = "smtplib.SMTPServerDisconnected: Connection unexpectedly closed"
            for number in range(4):
                state.add_failed_item(
                    FailedItem(
                        iteration=start_id,
                        shard=number,
                        key=str(number),
                        entity=f"email_students.Student {4711 + number}",
                        error_type="ValueError",
                        error="this address is none: ada(at)example.org",
                        created=now,
                    )
                )
        state.save_iteration(record)
    # They began a while ago.
    IterationRow.objects.update(created=now - timedelta(minutes=7))
    return ids["running"], ids["failed"]


def make_shard(shard: Any, status: str, now: datetime) -> Any:
    """Bring a shard as far as it would be."""
    place = shard.index
    shard.done = 10_000 if status == "succeeded" else 3000 + (place * 911) % 5000
    shard.status = "done" if status == "succeeded" or place == 3 else "running"
    shard.rate, shard.progressed_at = 118.0 + 9 * place, now - timedelta(seconds=place)
    shard.cursor = None if shard.status == "done" else f"{place * 10_000 + shard.done}"
    if shard.status == "done":
        shard.done = 10_000
    if status == "failed":
        shard.failed = 1 if place < 4 else 0
        if place == 5:
            shard.status, shard.attempts = "failed", 50
            shard.error = "smtplib.SMTPServerDisconnected: Connection unexpectedly closed"
    return shard


@contextmanager
def serve() -> Iterator[str]:
    """Serve the example site in threads; give its base URL."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.servers.basehttp import ThreadedWSGIServer

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(WSGIHandler()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def take(chromium: str, base: str, pages: dict[str, str]) -> None:
    """Take a picture of each page of each kind."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        for kind, width, height, is_dark in KINDS:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if is_dark else "light"
            )
            page = context.new_page()
            page.goto(f"{base}/admin/login/?next=/admin/")
            page.fill("#id_username", "admin")
            page.fill("#id_password", "admin")
            page.click("input[type=submit]")
            # The list of models at the side is the admin's, and no part of the console.
            page.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
            for name, path in pages.items():
                page.goto(base + path)
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    print(f"{name} ({kind}) is {wide} pixels wide, and the window {width}")
                page.screenshot(path=FOLDER / f"{name}-{kind}.png", full_page=False)
            context.close()
        browser.close()
    shrink()


def shrink() -> None:
    """Make the files small, where Pillow is installed (`pip install 'soc-tasks[bench]'` brings it)."""
    pictures = sorted(FOLDER.glob("*.png"))
    try:
        from PIL import Image
    except ImportError:
        print("The pictures would be a third as large with Pillow: pip install pillow")
    else:
        for path in pictures:
            with Image.open(path) as picture:
                # Small spots of a colour of their own must keep it.
                method = Image.Quantize.MAXCOVERAGE
                small = picture.convert("RGB").quantize(160, method=method, dither=Image.Dither.NONE)
            small.save(path, optimize=True)
    total = sum(path.stat().st_size for path in pictures)
    print(f"{len(pictures)} pictures, {total / 1024:,.0f} KB, in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
