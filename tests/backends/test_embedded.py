"""The embedded backend: a thin adapter over the engine."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

from soc_tasks.backends import embedded, get_backend, outbox
from soc_tasks.backends.embedded import EmbeddedBackend
from soc_tasks.engine import hooks
from soc_tasks.errors import NotSupportedError
from soc_tasks.models import OutboxRow
from soc_tasks.state import get_state
from tests.engine.tasks import make_task, names


@pytest.fixture
def backend(settings):
    settings.SOC_TASKS = {**getattr(settings, "SOC_TASKS", {}), "BACKEND": "embedded"}
    backend = get_backend()
    assert isinstance(backend, EmbeddedBackend)
    return backend


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestEnqueue:
    def test_an_alias_that_cannot_be_reached_does_not_hold_up_the_others(self, backend, monkeypatch, caplog):
        with monkeypatch.context() as patch, transaction.atomic(using="other"):
            patch.setattr(outbox, "_hand_on", lambda *_: None)
            backend.submit([make_task(name="left")], "other")
        OutboxRow.objects.using("other").update(leased_until=timezone.now() - timedelta(seconds=1))
        take = type(get_state()).take_held

        def fail_on_default(self, using, **options):
            if using == "default":
                raise OperationalError("gone")
            return take(self, using, **options)

        monkeypatch.setattr(type(get_state()), "take_held", fail_on_default)
        assert backend.relay() == 1
        assert "default" in caplog.text

    def test_the_relay_hands_on_what_a_dead_process_left(self, backend, monkeypatch):
        with monkeypatch.context() as patch, transaction.atomic(using="other"):
            # The process dies between the commit and the handing on.
            patch.setattr(outbox, "_hand_on", lambda *_: None)
            backend.submit([make_task(name="left")], "other")
        assert backend.list_tasks() == []
        assert backend.relay() == 0
        # The lease of the dead process ends.
        OutboxRow.objects.using("other").update(leased_until=timezone.now() - timedelta(seconds=1))
        assert backend.relay() == 1
        assert names(backend.list_tasks()) == ["left"]


@pytest.mark.django_db
class TestContract:
    def test_tasks_for_a_service_that_is_known_are_taken(self, backend, settings):
        settings.SOC_TASKS = {**settings.SOC_TASKS, "SERVICES": {"mail": "https://mail.example"}}
        backend.submit([make_task(name="there", service="mail")], None)
        assert backend.get_task("default", "there").task.service == "mail"
        for fields in ({"service": "other"}, {"service": "mail", "version": "1"}, {"instance": "1"}):
            with pytest.raises(NotSupportedError, match=r"SERVICES|cloud_tasks"):
                backend.submit([make_task(**fields)], None)

    def test_which_alias_shares_its_transaction(self, backend, settings):
        assert backend.shares_transaction("default")
        assert not backend.shares_transaction("other")
        settings.SOC_TASKS = {**settings.SOC_TASKS, "DATABASE": "other"}
        assert backend.shares_transaction("other")

    def test_looking_after_queues(self, backend):
        backend.submit([make_task(name="one"), make_task(name="two")], None)
        backend.pause("default")
        assert backend.list_queues()[0].paused
        backend.resume("default")
        assert backend.get_task("default", "one").task.name == "one"
        assert backend.run_now("default", "one")
        assert backend.delete_task("default", "one")
        assert backend.purge("default") == 1

    def test_the_hooks_are_registered_once(self, backend):
        EmbeddedBackend()
        EmbeddedBackend()
        assert hooks._exhausted.count(embedded._exhausted) == 1
        assert hooks._upkeep.count(embedded._relay) == 1
        assert hooks._sweeps.count(embedded._sweep) == 1
        assert hooks._progress.count(embedded._progress) == 1

    def test_an_exhausted_task_becomes_a_dead_letter(self, backend):
        hooks.tell_exhausted(make_task(name="dead"), 3, 504)
        (letter,) = get_state().list_dead_letters()
        assert (letter.task.name, letter.attempts) == ("dead", 3)

    def test_upkeep_relays_and_sweeps(self, backend, monkeypatch):
        called = []
        monkeypatch.setattr(EmbeddedBackend, "relay", lambda self: called.append("relay"))
        monkeypatch.setattr(type(get_state()), "sweep", lambda self: called.append("sweep") or 3)
        monkeypatch.setattr(hooks, "_upkeep", [embedded._relay])
        monkeypatch.setattr(hooks, "_sweeps", [embedded._sweep])
        # Where something was swept there may be more.
        assert hooks.run_upkeep()
        assert called == ["relay", "sweep"]
        assert not hooks.run_upkeep(sweeps=False)
        assert called == ["relay", "sweep", "relay"]

    def test_a_task_without_a_shard_has_no_progress(self, backend):
        assert hooks.ask_progress(make_task()) == ""
