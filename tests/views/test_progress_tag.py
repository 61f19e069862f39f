"""`{% iteration_progress %}`: what stands on the page before any script has run."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.template import Context, Template
from django.test import Client
from django.utils import translation

from soc_tasks import Iteration, TaskHandle
from soc_tasks.logic.progress import Progress
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.views.progress_texts import write_texts

pytestmark = pytest.mark.django_db

RUN = "0123456789abcdef" * 2


class Page(HTMLParser):
    """The elements of a page: tag, attributes and the text up to the next tag."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2] += data

    def all(self, tag):
        return [(attributes, text.strip()) for name, attributes, text in self.elements if name == tag]


def render(text, **context):
    return Template("{% load soc_tasks %}" + text).render(Context(context))


def show(text="{% iteration_progress iteration %}", **context):
    return Page(render(text, **{"iteration": RUN, **context}))


@pytest.fixture
def made():
    """Keep an iteration: `made(status, done, total)`."""

    def make(status="running", done=0, total=None):
        record = IterationRecord(id=RUN, name="run", status=status, total=total, options={"shards": 1})
        get_state().create_iteration(record, [ShardRecord(iteration=RUN, index=0, done=done)])

    return make


def test_it_shows_the_moment_without_any_script(made):
    made("paused", 3400, 10000)
    page = show('{% iteration_progress iteration label="Sending mail" %}')
    [(_, label)] = page.all("label")
    assert label == "Sending mail"
    assert page.all("progress") == [({"class": "soc-tasks-progress-bar", "max": "1", "value": "0.3400"}, "")]
    assert [text for _, text in page.all("span")] == ["Paused", "3,400 of 10,000"]
    assert page.all("span")[0][0] | {"role": "status", "aria-live": "polite"} == page.all("span")[0][0]
    [(element, _)] = page.all("soc-tasks-progress")
    assert element["data-status"] == "paused"
    assert "data-ended" not in element


def test_where_the_total_is_not_known_the_bar_has_no_value(made):
    made("running", 7)
    page = show()
    assert "value" not in page.all("progress")[0][0]
    assert page.all("span")[1][1] == "7 done"
    assert page.all("label")[0][1] == "Progress"


def test_one_that_has_ended_asks_nothing_more(made):
    made("succeeded", 7, 7)
    page = show()
    assert "data-ended" in page.all("soc-tasks-progress")[0][0]
    assert page.all("progress")[0][0]["value"] == "1.0000"


def test_numbers_are_written_as_html_wants_them_in_every_language(made, settings):
    settings.USE_THOUSAND_SEPARATOR = True
    made("running", 1500, 3000)
    with translation.override("de"):
        page = show()
    assert page.all("progress")[0][0]["value"] == "0.5000"
    assert page.all("span")[1][1] == "1.500 of 3.000"


def test_its_url_answers(made):
    made("running", 5, 10)
    [(element, _)] = show().all("soc-tasks-progress")
    assert Client().get(element["data-url"]).json()["done"] == 5


@pytest.mark.parametrize("around", ["{}", "{{% autoescape off %}}{}{{% endautoescape %}}"])
def test_what_is_shown_is_escaped(made, around):
    made()
    label = '"><script>alert(1)</script>'
    text = render(around.format("{% iteration_progress iteration label=label %}"), iteration=RUN, label=label)
    assert "<script>" not in text
    assert Page(text).all("label")[0][1] == label


def test_nothing_stands_inside_the_page_that_a_strict_policy_forbids(made):
    made()
    page = show()
    for _, attributes, _ in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    [(script, code)] = page.all("script")
    assert (script, code) == ({"type": "module", "src": "/static/soc_tasks/progress.js"}, "")
    assert page.all("style") == []


@pytest.mark.parametrize(
    "text",
    [
        "{% iteration_progress iteration %}{% iteration_progress iteration %}",
        "{% for i in 'ab' %}{% iteration_progress iteration %}{% endfor %}",
        "{% iteration_progress_media %}{% iteration_progress iteration %}{% iteration_progress iteration %}",
    ],
)
def test_several_bars_load_script_and_style_once(text):
    page = show(text)
    assert len(page.all("soc-tasks-progress")) == 2
    assert len(page.all("script")) == len(page.all("link")) == 1


def test_each_rendering_loads_them_anew():
    template, context = Template("{% load soc_tasks %}{% iteration_progress iteration %}"), {"iteration": RUN}
    assert all("<script" in template.render(Context(context)) for _ in range(2))


def test_the_pages_nonce_is_used():
    page = show(csp_nonce="abc")
    assert page.all("script")[0][0]["nonce"] == page.all("link")[0][0]["nonce"] == "abc"


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_is_shown_of_nothing(nothing):
    assert render("{% iteration_progress iteration %}", iteration=nothing) == ""
    assert render("{% iteration_progress no.such.variable %}") == ""


def test_it_takes_a_handle_or_an_iteration(made):
    made("paused")
    for what in (TaskHandle(name="n", queue="default", url="/", iteration=RUN), Iteration.get(RUN)):
        assert "Paused" in render("{% iteration_progress iteration %}", iteration=what)
    with pytest.raises(ValueError, match="starts no iteration"):
        render("{% iteration_progress iteration %}", iteration=TaskHandle(name="n", queue="default", url="/"))
    with pytest.raises(TypeError, match="pass what startTask returned"):
        render("{% iteration_progress iteration %}", iteration=5)


def test_a_site_may_lay_it_out_anew(made, settings, tmp_path):
    made("paused")
    (tmp_path / "soc_tasks").mkdir()
    (tmp_path / "soc_tasks" / "iteration_progress.html").write_text("mine: {{ progress.status }}")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    assert render("{% iteration_progress iteration %}", iteration=RUN).startswith("mine: paused")


@pytest.mark.parametrize(
    ("rate", "left", "detail"),
    [
        (1234.6, None, "1 of 9 · 1,235 a second"),
        (0.51, None, "1 of 9 · 1 a second"),
        (0.2, None, "1 of 9 · 12 a minute"),
        (0.001, None, "1 of 9 · 4 an hour"),
        (0.0001, None, "1 of 9"),
        (0, timedelta(0), "1 of 9"),
        (2, timedelta(seconds=0.2), "1 of 9 · 2 a second · 1 second left"),
        (2, timedelta(seconds=90), "1 of 9 · 2 a second · 90 seconds left"),
        (2, timedelta(seconds=91), "1 of 9 · 2 a second · 2 minutes left"),
        (2, timedelta(minutes=91), "1 of 9 · 2 a second · 2 hours left"),
        (2, timedelta(hours=49), "1 of 9 · 2 a second · 3 days left"),
    ],
)
def test_rates_and_times_are_told_in_units_that_people_use(rate, left, detail):
    progress = Progress(status="running", done=1, total=9, rate=rate, time_left=left)
    assert write_texts(progress)["detail"] == detail


def test_what_failed_is_told():
    assert write_texts(Progress(status="paused", done=8, failed=1, total=9))["detail"] == "8 of 9 · 1 failed"
