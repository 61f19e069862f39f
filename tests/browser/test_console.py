"""The console in a real browser, on the example project under a strict Content-Security-Policy."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.console_data import POLICY, STUDENTS
from tests.browser.test_progress_bar import OPTIONS
from tests.engine.running import until
from tests.requirements import find_chromium

pytestmark = [pytest.mark.requires("chromium")]

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = "/admin/soc_tasks/console/"
#: Milliseconds within which a page shows what has happened: it looks every few seconds.
LONG = 30_000
EMAIL = "/program/<slug:slug>/email_all/"
SCRIPT = "<script>document.title = 'broken in'</script>"
CONTEXT = {"logic": "soc.logic.models.student", "subject": "Welcome", "body": "It begins."}


class Site:
    """The example project, served by `runserver`, which runs due tasks by itself."""

    def __init__(self, folder):
        self.fixed, self.ran, self.log = folder / "fixed", folder / "ran", folder / "log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.browser.console_settings",
            "DATABASE_PATH": str(folder / "db.sqlite3"),
            "PYTHONPATH": str(ROOT),
            "FIXED": str(self.fixed),
            "RAN": str(self.ran),
            # The live settings of the tests are none of the site's.
            "SOC_TASKS_TEST_DATABASES": "null",
        }
        self.call("-m", "tests.browser.console_data")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until(self.answers)

    def call(self, *arguments):
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=self.environment, check=True)

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/favicon.ico", timeout=5) as answer:
                return answer.status == 204
        except urllib.error.URLError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def live(tmp_path):
    site = Site(tmp_path)
    yield site
    site.stop()


@pytest.fixture
def open_page(live):
    """Give a function that logs somebody in with a browser of their own; notes all troubles and requests."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=LONG)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        pages = []

        def open_page(name):
            page = chromium.new_context(base_url=live.url).new_page()
            page.set_default_timeout(LONG)
            page.troubles, page.asked = [], []
            page.on(
                "console", lambda message: message.type in ("error", "warning") and page.troubles.append(message.text)
            )
            page.on("pageerror", lambda error: page.troubles.append(str(error)))
            page.on("dialog", lambda dialog: (page.troubles.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto("/admin/login/?next=" + CONSOLE)
            page.fill("#id_username", name)
            page.fill("#id_password", name)
            page.click("input[type=submit]")
            page.wait_for_url("**" + CONSOLE)
            pages.append(page)
            return page

        yield open_page
        for page in pages:
            assert page.troubles == []
            assert {urlsplit(url).netloc for url in page.asked} == {urlsplit(live.url).netloc}
        chromium.close()


def start(page, route, context, **fields):
    """Start a task by its form."""
    fill(page, route, context, **fields)
    page.get_by_role("button", name="Start", exact=True).click()


def fill(page, route, context, **fields):
    """Fill in the form of a task."""
    page.goto(CONSOLE + "start/")
    page.get_by_role("row").filter(has_text=route).get_by_role("link").first.click()
    for name, value in fields.items():
        page.fill(f"[name={name}]", str(value))
    page.fill("[name=context]", json.dumps(context))


def shown(page):
    """The part of the bar that is filled."""
    return float(page.locator(".soc-bar-large progress").get_attribute("value") or 0)


def look(page):
    """Wait until the page has looked what is new."""
    with page.expect_response(lambda response: "hx-request" in response.request.headers) as answered:
        pass
    answered.value.finished()
    # What came is put in place before anything else is done.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def look_until(page, condition):
    """Look until something is so."""
    for _ in range(20):
        if condition():
            return
        look(page)
    pytest.fail("it did not happen in time")


def test_a_person_starts_steers_and_mends(live, open_page):
    from playwright.sync_api import expect

    page = open_page("admin")
    assert page.request.get(CONSOLE).headers["content-security-policy"] == POLICY

    # The e-mail task: counted, tried dry, started, watched, paused, resumed, cancelled.
    fill(page, EMAIL, CONTEXT, url_slug="gsoc2009")
    page.get_by_role("button", name="Count").click()
    expect(page.get_by_text(f"{STUDENTS:,} entities")).to_be_visible()
    page.get_by_role("button", name="Try 100 rows dry").click()
    expect(page.locator("pre[role=status]")).to_contain_text(re.compile(f"100 of {STUDENTS:,}"))
    page.get_by_role("button", name="Start", exact=True).click()
    state = page.locator(".soc-bar-large .soc-tasks-progress-state")
    expect(state).to_have_text("Running", timeout=LONG)
    look_until(page, lambda: shown(page) > 0)
    first = shown(page)
    look_until(page, lambda: shown(page) > first)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(state).to_have_text("Paused")
    # The batch that was running ends; then it stands still, while the page goes on looking.
    seen = [shown(page)]
    look_until(page, lambda: len(seen) != len(set(seen)) or seen.append(shown(page)))
    stood = shown(page)
    look(page)
    look(page)
    assert shown(page) == stood
    assert 0 < stood < 1
    page.get_by_role("button", name="Resume", exact=True).click()
    look_until(page, lambda: shown(page) > stood)
    page.get_by_text("Cancel…").press("Enter")
    page.get_by_role("button", name="Cancel for good").click()
    expect(state).to_have_text("Cancelled")
    expect(page.locator(".soc-bar-large .soc-tasks-progress-detail")).to_have_text(re.compile(f"of {STUDENTS:,}"))

    # A task that fails for good: found, mended, run again. What it carries stays text.
    start(page, "/fragile/", {"note": SCRIPT, "password": "hunter2"})
    page.goto(CONSOLE + "failures/")
    expect(page.get_by_role("cell", name="FatalTaskError").first).to_be_visible()
    page.get_by_role("link", name="/fragile/").first.click()
    expect(page.get_by_text(SCRIPT).first).to_be_visible()
    assert "hunter2" not in page.content()
    assert "broken in" not in page.title()
    letter = page.url
    live.fixed.touch()
    page.get_by_role("button", name="Retry", exact=True).click()
    until(live.ran.exists)
    until(lambda: live.ran.read_text() == SCRIPT)
    expect(page.get_by_text("Nothing has failed for good.")).to_be_visible()
    assert page.request.get(letter).status == 404

    # A queue is purged, after a word about how many.
    for _ in range(3):
        start(page, "/fragile/", {"note": "later"}, countdown=3600)
    page.goto(CONSOLE + "queues/")
    page.get_by_role("link", name="Purge… default").click()
    expect(page.locator(".soc-main")).to_contain_text("3 tasks of the queue default will be deleted")
    page.get_by_role("button", name="Purge the queue").click()
    expect(page.locator(".messagelist")).to_contain_text("3 tasks were deleted from queue default.")
    page.goto(CONSOLE + "tasks/")
    expect(page.get_by_text("No task waits or runs.")).to_be_visible()

    # All of it is in the log.
    page.goto(CONSOLE + "audit/")
    log = page.locator(".soc-table").inner_text()
    for action in ("start task", "pause iteration", "resume iteration", "cancel iteration", "retry failure", "purge"):
        assert action in log


def test_who_may_only_look_is_refused_each_action_and_sees_no_payload(live, open_page):
    from playwright.sync_api import expect

    admin, viewer = open_page("admin"), open_page("viewer")
    start(admin, "/fragile/", {"note": "for the office alone"})
    start(admin, "/fragile/", {"note": "for the office alone"}, countdown=3600)
    admin.goto(CONSOLE + "tasks/")
    waiting = admin.get_by_role("link", name="/fragile/").first.get_attribute("href")
    viewer.goto(CONSOLE + "failures/")
    viewer.get_by_role("link", name="/fragile/").first.click()
    expect(viewer.get_by_text("soc_tasks.view_payloads").first).to_be_visible()
    letter = urlsplit(viewer.url).path
    for path in (letter, waiting):
        text = viewer.request.get(path).text()
        assert "office" not in text
        assert "broken in" not in text
    assert viewer.locator(".soc-main button:not(#soc-live-switch)").count() == 0
    token = next(cookie["value"] for cookie in viewer.context.cookies() if cookie["name"] == "csrftoken")
    actions = {
        CONSOLE + "queues/default/steer/": {"verb": "pause"},
        CONSOLE + "queues/default/purge/": {},
        waiting + "act/": {"verb": "delete"},
        CONSOLE + f"iterations/{'0' * 32}/steer/": {"verb": "cancel"},
        CONSOLE + f"iterations/{'0' * 32}/retry/": {"all": "1"},
        letter + "act/": {"verb": "discard"},
        CONSOLE + "failures/selected/": {"verb": "discard", "letter": "1"},
        CONSOLE + "failures/all/": {"verb": "discard"},
        CONSOLE + "start/task/": {"route": "/fragile/", "what": "start", "context": "{}", "queue": "default"},
    }
    for path, data in actions.items():
        answer = viewer.request.post(path, form=data, headers={"X-CSRFToken": token, "Referer": live.url})
        assert answer.status == 403, path
    admin.goto(letter)
    expect(admin.get_by_role("button", name="Retry", exact=True)).to_be_visible()
    admin.goto(waiting)
    expect(admin.get_by_role("button", name="Delete")).to_be_visible()


def test_live_updates_can_be_paused_and_wait_while_something_is_selected(live, open_page):
    from playwright.sync_api import expect

    page = open_page("admin")
    start(page, "/fragile/", {"note": "x"})
    page.goto(CONSOLE + "failures/")
    expect(page.get_by_role("link", name="/fragile/")).to_have_count(1)
    state = page.locator("#soc-live-state")
    # All are selected at once, with the keyboard; meanwhile nothing is taken away.
    page.get_by_label("Select all that are shown").press("Space")
    assert page.locator("tbody input:checked").count() == 1
    expect(state).to_have_text("Held while you select")
    page.get_by_label("Select all that are shown").press("Space")
    expect(state).to_have_text("Live")
    page.get_by_role("button", name="Pause live updates").press("Enter")
    expect(state).to_have_text("Updates are paused")
    page.reload()
    expect(state).to_have_text("Updates are paused")
    asked = len(page.asked)
    with page.expect_response(lambda response: "hx-request" in response.request.headers):
        page.get_by_role("button", name="Resume live updates").click()
    assert len(page.asked) == asked + 1
    expect(state).to_have_text("Live")
