"""Checks combine, fail closed, and stand in the way of no task: neither does any middleware of Django's."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory, override_settings

from soc_tasks import from_cron, from_queue, has_permission, staff, startTask, superuser, task
from tests.views.calls import deliver, refused, route


def yes(request):
    return True


def no(request):
    return False


def truthy(request):
    return "yes"


def broken(request):
    raise LookupError("sentinel-4711")


@pytest.mark.parametrize(
    ("check", "let_in"),
    [
        (yes, True),
        (no, False),
        (truthy, False),
        (broken, False),
        (from_queue & yes, True),
        (from_queue & no, False),
        (yes & from_queue, True),
        (no | from_queue, True),
        (from_queue | no, True),
        (no | (yes & from_queue), True),
        ((no | from_queue) & no, False),
        (truthy | from_queue & no, False),
        (broken | from_queue, True),
        (broken & from_queue, False),
        (from_queue & broken, False),
        (from_cron | superuser, False),
        (staff & from_queue, False),
        (has_permission("a.b") | from_queue, True),
    ],
    ids=lambda part: getattr(part, "__name__", None) or repr(part),
)
def test_checks_combine(check, let_in, db):
    ran = []

    @task(access=check)
    def view(request):
        ran.append(request)

    with route(view):
        response = deliver("/view/")
    assert response.status_code == (200 if let_in else 403)
    assert response.content == b""
    assert len(ran) == let_in


def test_a_check_that_breaks_lets_nobody_in_and_says_so(caplog):
    with route(task(access=broken)(lambda request: None)):
        assert refused(deliver("/view/"))
    assert "broken" in caplog.text


def test_checks_read_as_they_were_written():
    check = from_queue | (staff & has_permission("app.change_x")) | no
    assert repr(check) == "((from_queue | (staff & has_permission('app.change_x'))) | no)"


@pytest.mark.parametrize("bad", [None, True, "from_queue", yes(None), 5])
def test_what_is_no_check_is_refused_at_decoration(bad):
    with pytest.raises(TypeError, match="access"):
        task(access=bad)(lambda request: None)
    if bad is not None:
        with pytest.raises(TypeError, match="access"):
            from_queue | bad


@pytest.mark.parametrize("bad", ["", "change_x", ".x", "app."])
def test_a_permission_has_two_parts(bad):
    with pytest.raises(ValueError, match="permission"):
        has_permission(bad)


def test_without_sessions_nobody_is_a_superuser():
    request = RequestFactory().post("/view/")
    assert not superuser(request)
    request.user = AnonymousUser()
    assert not superuser(request)


LOCALES = {"LANGUAGES": [("en", "English"), ("de", "Deutsch")], "USE_I18N": True}


@pytest.mark.parametrize(
    "options",
    [
        {"MIDDLEWARE": []},
        {"MIDDLEWARE": ["django.middleware.csrf.CsrfViewMiddleware"]},
        {
            "MIDDLEWARE": [
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.auth.middleware.LoginRequiredMiddleware",
            ]
        },
        {"MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"], "SECURE_SSL_REDIRECT": True},
        {
            "MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"],
            "SECURE_SSL_REDIRECT": True,
            "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        },
        {"MIDDLEWARE": ["django.middleware.locale.LocaleMiddleware"], **LOCALES, "LANGUAGE_CODE": "de"},
        {"MIDDLEWARE": ["django.middleware.common.CommonMiddleware"], "APPEND_SLASH": True},
        {"MIDDLEWARE": ["django.middleware.common.CommonMiddleware"], "ALLOWED_HOSTS": [".example.com", "example.com"]},
        {"MIDDLEWARE": ["django.middleware.http.ConditionalGetMiddleware", "django.middleware.gzip.GZipMiddleware"]},
        {"MIDDLEWARE": ["django.middleware.clickjacking.XFrameOptionsMiddleware"]},
    ],
    ids=lambda options: " ".join(name.rpartition(".")[2] for name in [*options["MIDDLEWARE"], *options]),
)
def test_no_middleware_of_djangos_stops_a_task(db, task_queues, site_calls, options):
    with override_settings(**options):
        startTask("behave", {"a": "b"})
        task_queues.process_task_queues()
    assert len(site_calls) == 1
