"""The progress of an iteration as JSON, behind a token."""

from __future__ import annotations

import re
import types
from urllib.parse import urlsplit

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, resolve, reverse
from django.utils import translation

from soc_tasks import ConfigurationError, FatalTaskError, Iteration, iterative_task, startTask
from soc_tasks.conf import get_settings
from soc_tasks.logic import progress_tokens
from soc_tasks.logic.progress_tokens import Permit, make_token
from soc_tasks.models import ShardRow
from soc_tasks.testing import TaskFailedBehaviour
from soc_tasks.views.progress import progress_url
from tests.specimen.models import Row
from tests.views.calls import refused

pytestmark = pytest.mark.django_db

SECRET = "sentinel-of-a-context"


def finalize(context):
    pass


@pytest.fixture
def run(task_queues):
    """Give a function that runs an iteration over 25 rows, which acts in its second batch, and returns its id."""
    Row.objects.bulk_create(Row() for _ in range(25))
    acts = []

    @iterative_task(Row, batch_size=10, finalize=finalize)
    def view(request, entities):
        iteration = Iteration.get(request.task.iteration)
        if acts and iteration.done == 10:
            acts.pop()(iteration)

    def start(act=None):
        acts[:] = [act] if act else []
        handle = startTask("task", {"secret": SECRET})
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        return handle.iteration

    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("task/", view, name="task"), path("_tasks/", include("soc_tasks.urls"))]
    with override_settings(ROOT_URLCONF=conf):
        yield start


def get(url, **more):
    return Client().get(url, **more)


def fail(iteration):
    raise FatalTaskError(f"broken {SECRET}")


def test_one_that_has_not_begun_waits(db):
    response = get(progress_url("d" * 32))
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "status": "waiting",
        "ended": False,
        "done": 0,
        "failed": 0,
        "total": None,
        "share": None,
        "rate": 0.0,
        "time_left": None,
        "held": False,
        "text": {"state": "Waiting to start", "detail": ""},
    }


@pytest.mark.parametrize(
    ("act", "values", "texts"),
    [
        (None, {"status": "succeeded", "ended": True, "done": 25, "share": 1, "time_left": 0}, ("Done", "25 of 25")),
        (Iteration.pause, {"status": "paused", "ended": False, "done": 20, "share": 0.8}, ("Paused", "20 of 25")),
        (Iteration.cancel, {"status": "cancelled", "ended": True, "done": 20}, ("Cancelled", "20 of 25")),
        (fail, {"status": "failed", "ended": True, "done": 10, "share": 0.4}, ("Failed", "10 of 25")),
    ],
)
def test_it_tells_how_far_it_is_and_nothing_else(run, act, values, texts):
    answer = get(progress_url(run(act))).json()
    assert {name: answer[name] for name in values} == values
    assert (answer["text"]["state"], answer["text"]["detail"]) == texts
    assert set(answer) == {
        *("status", "ended", "done", "failed", "total", "share", "rate", "time_left", "held", "text"),
    }
    for word in (SECRET, "view", "soc_tasks", "task", "cursor", "key"):
        assert word not in str(answer)


def test_who_may_see_the_shards_sees_them_without_keys_or_errors(run):
    iteration = run(fail)
    Iteration.get(iteration).resume()
    ShardRow.objects.update(hold="the database is busy")
    answer = get(progress_url(iteration, shards=True)).json()
    [shard] = answer["shards"]
    assert shard.pop("rate") > 0
    assert shard.pop("time_left") is answer["time_left"] is None
    assert shard == {
        "index": 0,
        "status": "running",
        "done": 10,
        "failed": 0,
        "total": 25,
        "hold": "the database is busy",
    }
    assert (answer["held"], answer["hold"]) == (True, "the database is busy")
    assert SECRET not in str(answer)
    plain = get(progress_url(iteration)).json()
    assert (plain["held"], plain["text"]["state"]) == (True, "Held back for now")
    assert "busy" not in str(plain)


def test_the_shard_of_finalize_is_none(run):
    answer = get(progress_url(run(), shards=True)).json()
    assert [shard["status"] for shard in answer["shards"]] == ["done"]
    assert ShardRow.objects.count() == 2


def test_in_python_it_is_the_same(run):
    iteration = Iteration.get(run(Iteration.pause))
    answer = get(progress_url(iteration, shards=True)).json()
    del answer["text"]
    assert iteration.as_dict() == answer


@pytest.mark.parametrize("token", ["x", "x:y", "a" * 3000])
def test_without_a_token_of_ours_nothing_is_told(token, django_assert_num_queries):
    with django_assert_num_queries(0):
        response = get(f"/_tasks/progress/{token}/")
    assert refused(response)
    assert response["Cache-Control"] == "no-store"


def test_a_token_is_for_one_iteration_and_a_time(run, monkeypatch):
    url = progress_url(run(), max_age=5)
    assert get(url).status_code == 200
    other = make_token(Permit(iteration="e" * 32))
    head = other.partition(":")[0]
    assert refused(get(f"/_tasks/progress/{head}:{url.rstrip('/').rpartition(':')[2]}/"))
    now = progress_tokens.time.time()
    monkeypatch.setattr(progress_tokens.time, "time", lambda: now + 7)
    assert refused(get(url))


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "head", "options"])
def test_it_is_only_read(method):
    assert getattr(Client(), method)(progress_url("d" * 32)).status_code == 405


def test_it_needs_no_login_and_sets_no_cookie(settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    response = get(progress_url("d" * 32))
    assert response.status_code == 200
    assert not response.cookies


def test_a_look_opens_no_transaction():
    view = resolve(urlsplit(progress_url("d" * 32)).path).func
    assert all(alias in view._non_atomic_requests for alias in ("default", "other", "any"))


def test_a_look_is_cheap(run):
    iteration = run(Iteration.pause)
    url = progress_url(iteration)
    connection = connections[get_settings().database]
    counts = {}
    for shards in (1, 200):
        ShardRow.objects.filter(iteration_id=iteration).exclude(index=0).delete()
        first = ShardRow.objects.get(iteration_id=iteration)
        ShardRow.objects.bulk_create(
            ShardRow(
                **{
                    **{field.attname: getattr(first, field.attname) for field in ShardRow._meta.concrete_fields},
                    "id": None,
                    "index": index,
                }
            )
            for index in range(1, shards)
        )
        with CaptureQueriesContext(connection) as queries:
            assert get(url).json()["done"] == 20 * shards
        counts[shards] = [query["sql"] for query in queries]
    assert len(counts[1]) == len(counts[200]) == 2
    for sql in counts[200]:
        # Contexts and options may be large.
        assert not re.search(r"\bcontext\b|\boptions\b", sql)
        assert "WHERE" in sql
    # One that has ended needs one more at most, and then it is asked no more.
    Iteration.get(iteration).cancel()
    ShardRow.objects.all().delete()
    with CaptureQueriesContext(connection) as queries:
        get(url)
    assert len(queries) == 3


def test_both_lookups_are_by_an_index(run):
    iteration = run(Iteration.pause)
    connection = connections[get_settings().database]
    if connection.vendor != "sqlite":
        pytest.skip("other databases scan so few rows, whatever the index")
    with CaptureQueriesContext(connection) as queries:
        get(progress_url(iteration))
    for query in queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = " ".join(row[-1] for row in cursor.fetchall())
        assert "USING INDEX" in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan


def test_texts_are_in_the_language_of_the_page_that_asks(monkeypatch, run):
    iteration = run(Iteration.pause)
    monkeypatch.setattr("soc_tasks.views.progress_texts.gettext", lambda text: f"[{translation.get_language()}] {text}")
    with translation.override("de"):
        url = progress_url(iteration)
    assert get(url, headers={"Accept-Language": "fr"}).json()["text"]["state"] == "[de] Paused"
    assert get(progress_url(iteration, language="es")).json()["text"]["state"] == "[es] Paused"
    with translation.override(None):
        url = progress_url(iteration)
    assert get(url).status_code == 200


def test_a_site_without_the_librarys_urls_is_told_what_to_do(settings):
    settings.ROOT_URLCONF = "tests.engine.urls"
    with pytest.raises(ConfigurationError, match=r'add path\("_tasks/", include\("soc_tasks.urls"\)\)'):
        progress_url("d" * 32)


def test_the_url_has_a_name():
    assert reverse("tasks_progress", args=["x:y"]) == "/_tasks/progress/x:y/"
