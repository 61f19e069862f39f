"""Dead letters on their page: by error, one by one, and all that match."""

from __future__ import annotations

import pytest

from soc_tasks import FatalTaskError, startTask
from soc_tasks.logic import letter_pages
from soc_tasks.logic.letter_pages import LetterFilter, Tally, count_letters, find_page, work_off, work_on
from soc_tasks.state import get_state
from soc_tasks.state.audit import list_entries
from soc_tasks.testing import TaskFailedBehaviour
from tests import site
from tests.views.console.users import messages_of, url

pytestmark = pytest.mark.django_db(databases=["default", "other"])


class WrongError(FatalTaskError):
    """Another class."""


@pytest.fixture
def letters(task_queues, settings):
    """Give the ids of five dead letters, of two classes in two queues, oldest first."""
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]

    def fail(request, slug, **_):
        raise (WrongError if slug == "odd" else FatalTaskError)(f"broken {slug}")

    site.behaviours["behave"] = fail
    for number in range(5):
        slug = ("even", "odd")[number % 2]
        startTask("behave_slug", {"n": number}, ("default", "mail")[number == 4], url_kwargs={"slug": slug})
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    return sorted(letter.id for letter in get_state().list_dead_letters())


def ids(response):
    return [row["letter"].id for row in response.context["rows"]]


def test_failures_are_grouped_by_their_error(letters, operator):
    page = operator.get(url("failures"))
    groups = {group.error_type.rpartition(".")[2]: group.number for group in page.context["groups"]}
    assert groups == {"FatalTaskError": 3, "WrongError": 2}
    assert page.context["is_whole"]
    assert ids(page) == letters[::-1]


def test_failures_are_found_by_queue_error_and_text(letters, operator):
    kinds = {letter.error_type for letter in get_state().list_dead_letters()}
    [wrong] = [kind for kind in kinds if kind.endswith("WrongError")]
    [plain] = kinds - {wrong}
    assert ids(operator.get(url("failures"), {"queue": "mail"})) == [letters[4]]
    assert ids(operator.get(url("failures"), {"error": wrong})) == [letters[3], letters[1]]
    assert ids(operator.get(url("failures"), {"text": "BROKEN ODD"})) == [letters[3], letters[1]]
    assert ids(operator.get(url("failures"), {"queue": "mail", "error": plain})) == [letters[4]]
    assert ids(operator.get(url("failures"), {"queue": "mail", "error": wrong})) == []


def test_pages_of_failures_follow_each_other(letters, operator, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.console.failures.PAGE_SIZE", 2)
    page = operator.get(url("failures"))
    seen = ids(page)
    while page.context["next"]:
        page = operator.get(url("failures") + page.context["next"])
        seen += ids(page)
    assert seen == letters[::-1]


def test_one_failure_is_found_fixed_and_retried(letters, operator, task_queues):
    page = operator.get(url("failure", letters[0]))
    assert "broken even" in page.content.decode()
    assert "Traceback" in page.content.decode()
    site.behaviours["behave"] = lambda request, slug: None
    page = operator.post(url("failure_act", letters[0]), {"verb": "retry"}, follow=True)
    assert "queued in default" in messages_of(page)[0]
    assert get_state().get_dead_letter(letters[0]) is None
    before = len(site.calls)
    task_queues.process_task_queues()
    assert [call[2] for call in site.calls[before:]] == [{"slug": "even"}]
    assert operator.get(url("failure", letters[0])).status_code == 404


def test_selected_failures_are_discarded(letters, operator):
    data = {"verb": "discard", "letter": letters[:2]}
    page = operator.post(url("failures_selected"), data, follow=True)
    assert messages_of(page) == ["2 dead letters were discarded."]
    assert ids(page) == letters[:1:-1]
    page = operator.post(url("failures_selected"), {"verb": "retry"}, follow=True)
    assert messages_of(page) == ["No dead letters were selected."]


def test_all_that_match_are_retried_and_those_that_fail_meanwhile_are_not(letters, operator, task_queues):
    asked = operator.get(url("failures_all"), {"verb": "retry", "text": "broken odd"})
    assert asked.context["number"] == 2
    # They fail again before anybody answers.
    startTask("behave_slug", url_kwargs={"slug": "odd"})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    data = {"verb": "retry", "text": "broken odd", "up_to": asked.context["up_to"]}
    page = operator.post(url("failures_all"), data, follow=True)
    assert messages_of(page) == ["2 dead letters were queued again."]
    assert len(ids(page)) == 4
    [entry] = list_entries()
    assert (entry.action, entry.outcome) == ("retry failures", "2 dead letters were queued again.")


def test_what_takes_too_long_for_one_request_is_gone_on_with(letters, operator, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.console.failures.SECONDS", 0)
    monkeypatch.setattr(letter_pages, "BATCH", 2)
    page = operator.post(url("failures_all"), {"verb": "discard", "up_to": letters[-1]}, follow=True)
    assert messages_of(page) == ["2 dead letters were discarded.", "That is not all yet: go on below."]
    assert page.context["number"] == 3
    while get_state().list_dead_letters():
        data = {"verb": "discard", "up_to": page.context["up_to"]}
        page = operator.post(url("failures_all"), data, follow=True)
    assert messages_of(page) == ["1 dead letters were discarded."]


def test_one_that_cannot_be_retried_does_not_hold_the_others_back(letters, settings, task_queues):
    settings.CLOUD_TASKS_QUEUES = []
    tally = work_off("retry", LetterFilter(), before=letters[-1] + 1, seconds=60)
    assert (tally.done, tally.failed, tally.next) == (4, 1, None)
    assert "There is no queue 'mail'" in tally.errors[0]
    assert [letter.id for letter in get_state().list_dead_letters()] == [letters[4]]


def test_one_letter_is_retried_once_however_many_ask(letters, task_queues):
    page = find_page(LetterFilter(), limit=50)
    first, second = Tally(), Tally()
    work_on("retry", page.letters, first)
    work_on("retry", page.letters, second)
    assert (first.done, first.gone) == (5, 0)
    assert (second.done, second.gone) == (0, 5)
    assert task_queues.get_task_count() == 5


def test_counting_stops_at_the_cap(letters):
    assert count_letters(LetterFilter()) == (5, False)
    assert count_letters(LetterFilter(), cap=3) == (3, True)
    assert count_letters(LetterFilter(queue="mail")) == (1, False)
    assert count_letters(LetterFilter(text="odd"), up_to=letters[2]) == (1, False)
