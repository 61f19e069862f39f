"""The gazetteer without SQL: on both emulators its totals equal the data, also when a batch comes again."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from examples import demo_datastore
from examples.emulators import Emulator
from examples.gazetteer_datastore import settings as edition
from examples.gazetteer_datastore.kinds import count_cities, load, read_totals
from examples.stage import read_iteration
from soc_tasks import Iteration, SingularTaskFailure
from soc_tasks.state.datastore import get_client
from soc_tasks.testing import TaskFailedBehaviour
from tests.emulators import on_every_edition

#: More than a batch has.
CITIES = [("AA" if number % 3 else "BB", number, f"City {number}", number * 1000) for number in range(1, 401)]


@pytest.fixture(autouse=True)
def pages(example_project, settings):
    """Put the patterns and templates of the site over those of the other examples."""
    settings.ROOT_URLCONF = edition.ROOT_URLCONF
    settings.TEMPLATES = [{**edition.TEMPLATES[0], "DIRS": [Path(edition.__file__).parent / "templates"]}]


@pytest.fixture
def cities(kinds, settings):
    """Give a client of the site's, whose Datastore has cities."""
    settings.SOC_TASKS = {"STATE": "datastore", "DATASTORE_NAMESPACE": kinds.namespace}
    client = get_client()
    assert load(client, {"AA": "A", "BB": "B", "CC": "C"}, CITIES) == count_cities(client) == 400
    return client


def start():
    """Press the button; return the ids of the iteration and of the count."""
    page = Client().post("/count/").content.decode()
    return read_iteration(page), demo_datastore.read_count(page)


def find_finished(client, count_id):
    return client.get(client.key("Count", count_id))["finished"]


@on_every_edition
def test_totals_match_the_data(cities, task_queues):
    assert "Nothing was counted yet" in Client().get("/").content.decode()
    iteration_id, count_id = start()
    assert task_queues.get_task_count() == 1
    task_queues.process_task_queues()
    iteration = Iteration.get(iteration_id)
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", 400, 400)
    assert read_totals(cities, count_id) == demo_datastore.sum_up(CITIES)
    assert find_finished(cities, count_id) == 1
    page = Client().get("/").content.decode()
    assert "400 cities, population 80200000, finished" in page


@on_every_edition
def test_nothing_is_added_twice_by_batches_that_fail_after_they_wrote(cities, task_queues, monkeypatch):
    from examples.gazetteer_datastore import tasks

    add, failed = tasks.add, []

    def add_and_fail(client, count_id, found):
        add(client, count_id, found)
        if len(failed) < 2:
            failed.append(found)
            raise SingularTaskFailure("after the totals were written")

    monkeypatch.setattr(tasks, "add", add_and_fail)
    first, second = start(), start()
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(failed) == 2
    for iteration_id, count_id in (first, second):
        assert Iteration.get(iteration_id).status == "succeeded"
        assert read_totals(cities, count_id) == demo_datastore.sum_up(CITIES)
        assert find_finished(cities, count_id) == 1


@on_every_edition
def test_no_count_is_noted_where_its_task_is_not_accepted(cities, task_queues, monkeypatch):
    from examples.gazetteer_datastore import views

    def refuse(*args, **kwargs):
        raise ValueError("refused")

    monkeypatch.setattr(views, "startTask", refuse)
    with pytest.raises(ValueError, match="refused"):
        start()
    assert "Nothing was counted yet" in Client().get("/").content.decode()


def test_button_needs_post_and_token(settings):
    assert Client().get("/count/").status_code == 405
    settings.MIDDLEWARE = edition.MIDDLEWARE
    assert Client(enforce_csrf_checks=True).post("/count/").status_code == 403


@pytest.mark.parametrize(
    ("lacking", "said"), [("gcloud", "google-cloud-cli-firestore-emulator"), ("java", "default-jre-headless")]
)
def test_the_demo_says_what_to_install(monkeypatch, capsys, tmp_path, lacking, said):
    (tmp_path / "platform" / "cloud-firestore-emulator").mkdir(parents=True)
    programs = {name: str(tmp_path / "bin" / name) for name in {"gcloud", "java"} - {lacking}}
    monkeypatch.setattr("examples.emulators.shutil.which", programs.get)
    assert demo_datastore.main("firestore") == 1
    told = capsys.readouterr()
    assert "this machine lacks" in told.err
    assert "apt-get install" in told.err
    assert said in told.err
    assert told.out == ""


def test_the_demo_refuses_what_it_does_not_know(capsys):
    assert demo_datastore.main("sqlite") == 2
    assert "datastore, firestore" in capsys.readouterr().err
    for most in ("few", "12", "-5000"):
        assert demo_datastore.main("datastore", most) == 2
        assert "number of cities from 4000 on" in capsys.readouterr().err


def test_an_emulator_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("examples.emulators.shutil.which", lambda name: str(tmp_path / "bin" / name))
    assert "google-cloud-cli-datastore-emulator" in Emulator.missing("datastore")


def test_last_line_of_the_demo():
    result = demo_datastore.Result(cities=34_006, totals_match=True, kills=["a", "b"], seconds=61.23)
    assert str(result) == "demo: cities=34006 totals_match=yes kills=2 seconds=61.2"
    assert "totals_match=no" in str(demo_datastore.Result())
