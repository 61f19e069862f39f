"""The live bar in a real browser, on a live site under a strict Content-Security-Policy, with a worker beside it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections

from soc_tasks import Iteration, startTask
from soc_tasks.logic import progress_tokens
from tests.browser import site
from tests.engine.running import until, worker_threads
from tests.live import serve
from tests.requirements import find_chromium

pytestmark = [pytest.mark.requires("chromium")]

OPTIONS = [
    *("--no-sandbox", "--headless", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: Notes the bars' events where the test can read them.
LISTEN = """
window.told = [];
for (const name of ["soc-tasks-progress", "soc-tasks-ended"])
  document.addEventListener(name, (event) => told.push([name, event.detail.status, event.detail.done]));
"""
#: Notes when the page asks, by its own clock in milliseconds, and when it plans to ask again.
NOTE_QUESTIONS = """
window.asked = []; window.planned = [];
const ask = window.fetch, plan = window.setTimeout;
window.fetch = (...args) => { asked.push(Date.now()); return ask(...args); };
window.setTimeout = (...args) => { planned.push(Date.now()); return plan(...args); };
"""
#: More than the slowest bar waits between two questions, in milliseconds.
LONG = 20_000


class OneDatabase:
    """Says that nothing of the library's is in the other databases, so that a worker does not look there."""

    def allow_migrate(self, db, app_label, **hints):
        return db == "engine_database"


@pytest.fixture
def live(engine_database, settings, monkeypatch):
    """The site in threads, with a worker; `live.do` works with its database in a thread that has no browser."""
    settings.ROOT_URLCONF = "tests.browser.site"
    settings.MIDDLEWARE = ["tests.browser.site.strict_policy"]
    settings.ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
    monkeypatch.setattr(site, "gate", site.Gate())
    settings.DATABASE_ROUTERS = [OneDatabase()]
    with (
        serve(StaticFilesHandler(WSGIHandler())) as server,
        worker_threads(engine_database) as start_worker,
        ThreadPoolExecutor(1) as pool,
    ):
        start_worker(threads=2)
        server.do = lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result(60)
        yield server
        # Whatever still waits goes on.
        site.gate.open(100)
        server.do(connections.close_all)


@pytest.fixture
def browser(live):
    """A page with a clock of the test's own, and what went wrong in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        page = chromium.new_page()
        page.troubles, page.asked = [], []
        page.on("console", lambda message: message.type in ("error", "warning") and page.troubles.append(message.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("dialog", lambda dialog: (page.troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.asked.append(request.url))
        page.clock.install()
        page.add_init_script(LISTEN)
        yield page
        chromium.close()


class Bar:
    """One of the bars on the page, and what people see of it."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator("soc-tasks-progress").nth(number)

    @property
    def state(self):
        return self.root.get_by_role("status")

    @property
    def detail(self):
        return self.root.locator(".soc-tasks-progress-detail")

    @property
    def value(self):
        return self.root.get_by_role("progressbar")

    def shows(self, state, detail, value):
        """Let the bar ask, and wait until it shows this."""
        from playwright.sync_api import expect

        self.page.clock.fast_forward(LONG)
        expect(self.state).to_have_text(state)
        expect(self.detail).to_have_text(re.compile(detail))
        if value is None:
            expect(self.value).not_to_have_attribute("value", re.compile(".*"))
        else:
            expect(self.value).to_have_js_property("value", value)


def start(live, url="work"):
    return live.do(lambda: startTask(url).iteration)


def steer(live, iteration, verb):
    live.do(
        lambda: {"pause": Iteration.pause, "resume": Iteration.resume, "cancel": Iteration.cancel}[verb](
            Iteration.get(iteration)
        )
    )


def wait_for(live, iteration, done):
    until(lambda: live.do(lambda: Iteration.get(iteration).done) == done)


def test_a_bar_moves_pauses_goes_on_and_ends(live, browser):
    iteration = start(live)
    site.gate.wait()
    browser.goto(f"{live.url}/?iteration={iteration}")
    bar = Bar(browser)
    assert bar.value.get_attribute("value") == "0.0000"
    bar.shows("Running", "^0 of 40$", 0)
    # The page came with as much: what follows is not to be its first answer.
    until(lambda: browser.evaluate("told.length > 0"))
    site.gate.open()
    site.gate.wait()
    bar.shows("Running", r"^10 of 40 · [\d,]+ a (second|minute)( · \d+ \w+ left)?$", 0.25)
    steer(live, iteration, "pause")
    site.gate.open()
    wait_for(live, iteration, 20)
    bar.shows("Paused", "^20 of 40$", 0.5)
    steer(live, iteration, "resume")
    site.gate.wait()
    bar.shows("Running", "^20 of 40", 0.5)
    site.gate.open(2)
    wait_for(live, iteration, 40)
    bar.shows("Done", "^40 of 40$", 1)
    told = browser.evaluate("told")
    assert told[0] == ["soc-tasks-progress", "running", 0]
    assert told[-2:] == [["soc-tasks-progress", "succeeded", 40], ["soc-tasks-ended", "succeeded", 40]]
    assert [name for name, *_ in told].count("soc-tasks-ended") == 1
    assert ["soc-tasks-progress", "paused", 20] in told
    # It has ended: nothing is asked any more.
    asked = len(browser.asked)
    browser.clock.run_for(10 * LONG)
    assert len(browser.asked) == asked
    assert browser.troubles == []
    assert {urlsplit(url).netloc for url in browser.asked} == {urlsplit(live.url).netloc}


def test_what_is_shown_stays_text_and_has_a_name_for_those_who_do_not_see_it(live, browser):
    iteration = start(live)
    site.gate.wait()
    browser.goto(f"{live.url}/?iteration={iteration}")
    assert browser.get_by_role("progressbar", name=site.LABEL).count() == 1
    assert browser.locator("main script").count() == 1
    Bar(browser).shows("Running", "^0 of 40$", 0)
    assert browser.troubles == []


def test_it_waits_for_the_start_and_shows_what_nobody_has_counted(live, browser):
    iteration = "f" * 32
    browser.goto(f"{live.url}/?iteration={iteration}")
    bar = Bar(browser)
    bar.shows("Waiting to start", "^$", None)
    iteration = start(live, "work_uncounted")
    site.gate.wait()
    browser.goto(f"{live.url}/?iteration={iteration}")
    site.gate.open()
    site.gate.wait()
    bar.shows("Running", "^10 done", None)
    assert browser.troubles == []


def test_several_bars_and_one_that_comes_later(live, browser):
    first, second = start(live), start(live)
    site.gate.wait()
    site.gate.wait()
    browser.goto(f"{live.url}/?iteration={first}&iteration={second}")
    steer(live, first, "cancel")
    Bar(browser, 0).shows("Cancelled", "^0 of 40$", 0)
    Bar(browser, 1).shows("Running", "^0 of 40$", 0)
    # As libraries do that put parts of pages in place of others: it lives on, and one that is taken out asks nothing.
    browser.evaluate(
        "() => { const bar = document.querySelectorAll('soc-tasks-progress')[1];"
        " const text = bar.outerHTML; bar.remove(); document.body.insertAdjacentHTML('beforeend', text); }"
    )
    before = len(browser.asked)
    steer(live, second, "pause")
    Bar(browser, 1).shows("Paused", "^0 of 40$", 0)
    assert len(browser.asked) == before + 1
    assert browser.troubles == []


def test_it_asks_less_and_less_often_while_nothing_happens(live, browser):
    iteration = start(live)
    site.gate.wait()
    # Only the test moves the clock, so that a slow machine does not lengthen or shorten what is measured.
    browser.clock.pause_at(datetime.now() + timedelta(hours=1))
    browser.add_init_script(NOTE_QUESTIONS)
    browser.goto(f"{live.url}/?iteration={iteration}")
    Bar(browser).shows("Running", "^0 of 40$", 0)
    while browser.evaluate("asked.length") < 11:
        # It waits again, so that what goes by now is all of its pause.
        until(lambda: browser.evaluate("planned.length > asked.length"))
        browser.clock.run_for(500)
        browser.evaluate("0")
    questions = browser.evaluate("asked.map((at, i) => at - planned[i])")
    pauses = [milliseconds / 1000 for milliseconds in questions[1:]]
    assert pauses[0] <= 2
    assert pauses[-1] == 15
    assert all(later >= earlier for earlier, later in pairwise(pauses))


def test_trouble_on_the_way_passes_and_a_token_past_its_time_is_said(live, browser, monkeypatch):
    iteration = start(live)
    site.gate.wait()
    browser.goto(f"{live.url}/?iteration={iteration}")
    bar = Bar(browser)
    bar.shows("Running", "^0 of 40$", 0)
    browser.route("**/progress/**", lambda route: route.abort())
    browser.clock.fast_forward(LONG)
    browser.unroute("**/progress/**")
    site.gate.open()
    site.gate.wait()
    bar.shows("Running", "^10 of 40", 0.25)
    monkeypatch.setattr(progress_tokens, "time", Later())
    bar.shows("No longer up to date; reload the page.", "^10 of 40", 0.25)
    asked = len(browser.asked)
    browser.clock.run_for(5 * LONG)
    assert len(browser.asked) == asked


class Later:
    """A day later, and a bit."""

    @staticmethod
    def time():
        import time

        return time.time() + 86460
