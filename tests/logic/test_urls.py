"""Where a task may go: whatever is no path to a task view of this site is refused before anything is written."""

from __future__ import annotations

import types

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.test import override_settings
from django.urls import get_script_prefix, include, path, set_script_prefix
from django.utils.translation import gettext_lazy, override

from soc_tasks import NotSupportedError, iterative_task, startTask, task
from tests import site


@pytest.fixture
def script_prefix():
    before = get_script_prefix()
    yield set_script_prefix
    set_script_prefix(before)


def route(*patterns, **settings):
    """Serve `patterns` in place of the test site's, for the block."""
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = list(patterns)
    return override_settings(ROOT_URLCONF=conf, **settings)


HOSTILE = [
    "",
    " ",
    "/",
    "//",
    "//h",
    "//h/tasks/behave/",
    "///tasks/behave/",
    "/\\h",
    "\\\\h",
    "\\/h",
    "http://h",
    "http://testserver/tasks/behave/",
    "https://h/tasks/behave/",
    "HTTP://h/",
    "http:/tasks/behave/",
    "http:tasks/behave/",
    "ftp://h/",
    "file:///etc/passwd",
    "gopher://h/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "testserver/tasks/behave/",
    "testserver:80/tasks/behave/",
    "user@h/tasks/behave/",
    "/x@h",
    "@h",
    "\t/x",
    "\t/tasks/behave/",
    " /tasks/behave/",
    "/tasks/behave/\n",
    "/tasks/behave/\r\nX-AppEngine-QueueName: default",
    "/tasks/behave/ HTTP/1.1\r\n\r\n",
    "/tasks/be\x00have/",
    "/tasks/behave/\x7f",
    "/tasks/behave/ /",
    "/tasks\\behave/",
    "/a/../b",
    "/tasks/../tasks/behave/",
    "/tasks/behave/..",
    "/../tasks/behave/",
    "/./tasks/behave/",
    "/tasks/%2e%2e/tasks/behave/",
    "/tasks/%2E%2e/tasks/behave/",
    "/tasks/.%2e/tasks/behave/",
    "/tasks/%2e/behave/",
    "/tasks/%252e%252e/behave/",
    "/tasks/behave/%0d%0aHost:%20h/",
    "/tasks/behave/%0a",
    "/tasks/behave/%09",
    "/tasks/behave/%00",
    "/tasks/behave/%5c",
    "/%2f%2fh/",
    "/%5ch",
    "?#",
    "?",
    "#",
    "?page=1",
    "#fragment",
    "/tasks/behave/#fragment",
    "/tasks/behave/?a=b#fragment",
    "/tasks/behave/?a=b\r\nX: y",
    "/tasks/behave/?a=\\",
    "/tasks/behave",
    "/tasks/behave/two words/",
    "/tasks/behave/%zz/",
    "/tasks/behave/%ff/",
    "/tasks/behave/\ud800/",
    "/TASKS/behave/",
    "/tasks//behave/",
    "/tasks/behave//",
    "/tasks/behave;x=1/",
    "tasks/behave/",
    "/no/such/path/",
    "/ordinary/",
    "/guarded/",
    "/admin/",
    "ordinary",
    "admin:index",
    "no_such_name",
    "no:such:namespace",
    "tests.site.behave",
    "/tasks/behave/?" + "x" * 2100,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_what_leads_to_no_task_view_is_refused(task_queues, url):
    with pytest.raises(ValueError, match=r"."):
        startTask(url)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize("url", [None, 5, b"/tasks/behave/", ["/tasks/behave/"], site.ordinary, lambda request: None])
def test_what_is_neither_text_nor_a_task_view_is_refused(task_queues, url):
    with pytest.raises(ValueError, match=r"."):
        startTask(url)
    task_queues.assertNumTasksEquals(0)


def test_a_task_view_that_no_pattern_serves_is_refused(task_queues):
    for decorated in (task(lambda request: None), iterative_task(lambda request, entities: None)):
        with pytest.raises(ValueError, match="URL pattern"):
            startTask(decorated)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "behave_slug"},
        {"url": "behave_slug", "url_kwargs": {"slug": "two words"}},
        {"url": "behave_slug", "url_kwargs": {"name": "x"}},
        {"url": "behave_slug", "url_args": ["a", "b"]},
        {"url": "behave_slug", "url_args": ["a"], "url_kwargs": {"slug": "a"}},
        {"url": "/tasks/behave/", "url_args": ["a"]},
        {"url": "/tasks/behave/", "url_kwargs": {"slug": "a"}},
    ],
)
def test_url_arguments_that_do_not_fit_are_refused(task_queues, arguments):
    with pytest.raises(ValueError, match=r"."):
        startTask(**arguments)
    task_queues.assertNumTasksEquals(0)


def test_a_missing_slash_at_the_end_is_named(task_queues):
    with pytest.raises(ValueError, match="slash"):
        startTask("/tasks/behave")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("/tasks/behave/", "/tasks/behave/"),
        ("/tasks/behave/?page=2&x=a%20b", "/tasks/behave/?page=2&x=a%20b"),
        ("/tasks/behave/?next=/a//b/../c&mail=x@h", "/tasks/behave/?next=/a//b/../c&mail=x@h"),
        ("/tasks/behave/?crlf=%0d%0a", "/tasks/behave/?crlf=%0d%0a"),
        ("/tasks/behave/?name=ü", "/tasks/behave/?name=%C3%BC"),
        ("/tasks/behave/?", "/tasks/behave/?"),
        ("behave", "/tasks/behave/"),
        (site.behave, "/tasks/behave/"),
    ],
)
def test_good_urls_keep_their_query(task_queues, site_calls, url, wanted):
    assert startTask(url).url == wanted
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert request.get_full_path() == wanted.rstrip("?")


@pytest.mark.parametrize("url", ["/töne/%C3%BC%20x/", "/t%C3%B6ne/ü%20x/"])
def test_paths_beyond_ascii_arrive_as_they_were(task_queues, site_calls, url):
    with route(path("töne/<str:slug>/", site.behave)):
        assert startTask(url).url == "/t%C3%B6ne/%C3%BC%20x/"
        startTask(site.behave, url_args=["ü x"])
        task_queues.process_task_queues()
    assert [kwargs["slug"] for _, _, kwargs in site_calls] == ["ü x", "ü x"]


def test_names_in_a_namespace_are_names(task_queues, site_calls):
    with route(path("app/", include(([path("behave/", site.behave, name="behave")], "app")))):
        assert startTask("app:behave").url == "/app/behave/"
        with pytest.raises(ValueError, match="behave"):
            startTask("behave")


def test_the_script_prefix_is_part_of_the_path_and_split_off_again(task_queues, site_calls, script_prefix):
    script_prefix("/site/")
    assert startTask("behave").url == "/site/tasks/behave/"
    assert startTask("/site/tasks/behave/one/").url == "/site/tasks/behave/one/"
    for outside in ("/tasks/behave/", "/site", "/sitetasks/behave/", "/site//tasks/behave/", "/site/site/"):
        with pytest.raises(ValueError, match=r"."):
            startTask(outside)
    task_queues.process_task_queues()
    assert [request.path_info for _, request, _ in site_calls] == ["/tasks/behave/", "/tasks/behave/one/"]
    assert [request.META["SCRIPT_NAME"] for _, request, _ in site_calls] == ["/site", "/site"]


LANGUAGES = {
    "USE_I18N": True,
    "LANGUAGES": [("en", "English"), ("de", "Deutsch")],
    "LANGUAGE_CODE": "en",
    "MIDDLEWARE": ["django.middleware.locale.LocaleMiddleware"],
}


@pytest.mark.parametrize("active", ["en", "de"])
def test_language_prefixes_are_understood_whatever_language_is_active(task_queues, site_calls, active):
    with route(*i18n_patterns(path("behave/", site.behave, name="behave")), **LANGUAGES), override(active):
        for url in ("/en/behave/", "/de/behave/", "behave"):
            startTask(url)
        with pytest.raises(ValueError, match="no URL pattern"):
            startTask("/behave/")
        task_queues.process_task_queues()
    assert [request.path for _, request, _ in site_calls] == ["/en/behave/", "/de/behave/", f"/{active}/behave/"]


def test_a_name_leads_where_language_and_script_prefix_of_the_moment_say(task_queues, script_prefix):
    patterns = i18n_patterns(path("behave/", site.behave, name="behave"))
    with route(*patterns, **LANGUAGES):
        found = []
        for prefix, active in (("/", "en"), ("/", "de"), ("/site/", "de"), ("/", "en"), ("/site/", "en")):
            script_prefix(prefix)
            with override(active):
                found.append(startTask("behave").url)
    assert found == ["/en/behave/", "/de/behave/", "/site/de/behave/", "/en/behave/", "/site/en/behave/"]


@pytest.mark.parametrize("active", ["en", "de"])
def test_the_default_language_may_go_without_a_prefix(task_queues, site_calls, active):
    patterns = i18n_patterns(path("behave/", site.behave), prefix_default_language=False)
    with route(*patterns, **LANGUAGES), override(active):
        startTask("/behave/")
        startTask("/de/behave/")
        task_queues.process_task_queues()
    assert [request.path for _, request, _ in site_calls] == ["/behave/", "/de/behave/"]


def test_a_path_that_only_the_callers_language_knows_is_refused(task_queues, site_calls):
    with route(path(gettext_lazy("Yes"), site.behave), **LANGUAGES), override("de"):
        for url in ("/Ja", site.behave):
            with pytest.raises(ValueError, match="no URL pattern"):
                startTask(url)
        startTask("/Yes")
        task_queues.process_task_queues()
    assert len(site_calls) == 1


def test_a_task_for_another_service_is_refused_where_nothing_routes(task_queues):
    for option in ("service", "version", "instance"):
        with pytest.raises(NotSupportedError, match="cloud_tasks"):
            startTask("/tasks/behave/", **{option: "other"})
    with pytest.raises(NotSupportedError):
        startTask("/known/there/only/", service="other")
    with pytest.raises(ValueError, match="no URL for a task"):
        startTask("//h/", service="other")
    task_queues.assertNumTasksEquals(0)
