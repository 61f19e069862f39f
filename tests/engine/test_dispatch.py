"""A task as a WSGI request to this very site."""

from __future__ import annotations

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import get_script_prefix, path, reverse, set_script_prefix
from django.utils.translation import override

from soc_tasks import task as decorate
from soc_tasks.engine.dispatch import InProcessDispatcher, dispatch_host
from soc_tasks.values import COUNTDOWN_HEADER, DELIVERY_KEY, META_HEADER, OUTCOME_HEADER, Answer, Delivery
from tests.engine.tasks import make_task
from tests.live import FORM, META

# Django's handler closes old connections between requests.
pytestmark = pytest.mark.django_db

requests = []
streamed = []


def look(request, **kwargs):
    # The body of a request can be read while it is served only.
    request.read_body = request.body
    request.kwargs, request.own_url = kwargs, reverse("look", args=["x"])
    requests.append(request)
    return HttpResponse(status=int(request.GET.get("status", 200)))


def say(request):
    return HttpResponse(status=500, headers={OUTCOME_HEADER: "busy", COUNTDOWN_HEADER: "2.5"})


def lose(request):
    return HttpResponse(status=500, headers={OUTCOME_HEADER: "unknown"})


@decorate
def fail(request):
    raise ValueError("no such student \x00\ud800" + "!" * 5000)


def stream(request):
    return StreamingHttpResponse(streamed.append(part) or b"" for part in range(3))


def leave_site(environ, start_response):
    raise OSError("the middleware is broken")


urlpatterns = [
    path("look/<str:what>", look, name="look"),
    path("say", say),
    path("stream", stream),
    path("fail", fail),
    path("lost", lose),
]


@pytest.fixture(autouse=True)
def here(settings):
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["site.example", "localhost"]
    requests.clear()
    streamed.clear()


def call(task, **fields):
    delivery = Delivery(queue=task.queue, name=task.name, **fields)
    return InProcessDispatcher()(task, delivery), delivery


def test_the_request_that_a_view_sees():
    task = make_task(
        "/look/caf%C3%A9?a=1&b=%20",
        body=b"k=v",
        headers={"Content-Type": "application/x-www-form-urlencoded", "X-Own-Header": "own"},
    )
    answer, delivery = call(task)
    assert answer == Answer(status=200)
    (request,) = requests
    assert (request.method, request.kwargs, request.GET["b"]) == ("POST", {"what": "café"}, " ")
    assert request.read_body == b"k=v"
    assert request.POST["k"] == "v"
    assert request.headers["X-Own-Header"] == "own"
    assert request.environ[DELIVERY_KEY] is delivery
    assert request.get_host() == "site.example"
    assert not request.is_secure()


def test_the_script_prefix_is_split_from_the_path():
    call(make_task("/prefix/look/x", script_name="/prefix"))
    (request,) = requests
    assert (request.path, request.path_info, request.own_url) == ("/prefix/look/x", "/look/x", "/prefix/look/x")


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500])
def test_the_answer_has_the_status(status):
    assert call(make_task(f"/look/x?status={status}"))[0].status == status


@pytest.mark.parametrize("path", ["/nowhere", "/look", "/caf%C3%A9", "/look/x/more?status=404", "/prefix/nowhere"])
def test_a_path_that_no_view_has_is_unknown(path):
    script_name = "/prefix" if path.startswith("/prefix") else ""
    assert call(make_task(path, script_name=script_name))[0] == Answer(status=404, outcome="unknown")


def test_a_views_own_404_is_none_of_that():
    assert call(make_task("/look/x?status=404"))[0] == Answer(status=404)
    assert call(make_task("/look/caf%C3%A9?status=404"))[0] == Answer(status=404)
    # Nor is one whose view was asked: it knows better than the URL conf what came of it.
    assert call(make_task("/lost"))[0] == Answer(status=500, outcome="unknown")


class OtherUrls:
    """A module of URLs."""

    urlpatterns = (path("there/<str:what>", look, name="look"),)


def choose_urls(get_response):
    """Serve another URL conf, as sites with tenants do."""

    def middleware(request):
        request.urlconf = OtherUrls
        return get_response(request)

    return middleware


def test_the_url_conf_in_force_decides(settings):
    settings.MIDDLEWARE = [f"{__name__}.choose_urls"]
    assert call(make_task("/there/x?status=404"))[0] == Answer(status=404)
    assert call(make_task("/look/x?status=404"))[0] == Answer(status=404, outcome="unknown")


def test_the_language_in_force_decides(settings):
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"]
    settings.ROOT_URLCONF = OtherLanguages
    with override("en"):
        assert call(make_task("/de/look/x?status=404"))[0] == Answer(status=404)
        assert call(make_task("/de/nowhere"))[0] == Answer(status=404, outcome="unknown")


class OtherLanguages:
    """A module of URLs."""

    urlpatterns = i18n_patterns(path("look/<str:what>", look, name="look"))


def test_outcome_and_countdown_come_by_header():
    assert call(make_task("/say"))[0] == Answer(status=500, outcome="busy", countdown=2.5)


def test_what_a_view_raised_is_noted_as_every_database_can_keep_it():
    form = {"Content-Type": FORM, META_HEADER: META}
    answer = call(make_task("/fail", body=b"a=1", headers=form))[0]
    assert answer.status == 500
    assert answer.note.startswith(r"ValueError: no such student \x00\ud800!!!")
    assert len(answer.note) < 1100


def test_what_is_streamed_runs_to_its_end():
    call(make_task("/stream"))
    assert streamed == [0, 1, 2]


def test_an_exception_that_leaves_the_site_is_a_500(caplog):
    task = make_task()
    delivery = Delivery(queue="default", name=task.name)
    assert InProcessDispatcher(leave_site)(task, delivery) == Answer(
        status=500, note="OSError: the middleware is broken"
    )
    assert isinstance(delivery.failures[0], OSError)
    assert task.name in caplog.text


@pytest.mark.parametrize(
    ("given", "hosts", "expected"),
    [
        (None, ["*", ".wide.example", "own.example"], "own.example"),
        (None, ["*"], "localhost"),
        (None, [], "localhost"),
        ("given.example:8443", ["own.example"], "given.example:8443"),
    ],
)
def test_the_host_is_one_that_the_site_lets_through(given, hosts, expected):
    with override_settings(SOC_TASKS={"HOST": given}, ALLOWED_HOSTS=hosts):
        assert dispatch_host() == expected


def test_https_where_the_site_redirects_to_it(settings):
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
    settings.SECURE_SSL_REDIRECT = True
    assert call(make_task("/look/x"))[0].status == 200
    assert requests[0].is_secure()
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert call(make_task("/look/x"))[0].status == 200


@pytest.mark.parametrize("host", ["[::1]", "[::1]:8000", "localhost:8000"])
def test_hosts_with_ports_and_brackets(settings, host):
    settings.SOC_TASKS = {"HOST": host}
    settings.ALLOWED_HOSTS = ["[::1]", "localhost"]
    assert call(make_task("/look/x"))[0].status == 200
    assert requests[0].get_host() == host


def test_the_thread_keeps_its_script_prefix():
    set_script_prefix("/mine/")
    try:
        call(make_task("/other/look/x", script_name="/other"))
        assert get_script_prefix() == "/mine/"
    finally:
        set_script_prefix("/")


def test_what_fails_after_the_answer_does_not_change_it():
    def fail(**_):
        raise ValueError("a receiver of request_finished")

    request_finished.connect(fail)
    try:
        answer, delivery = call(make_task("/look/x"))
    finally:
        request_finished.disconnect(fail)
    assert (answer.status, delivery.failures) == (200, [])
