"""The contract of a store: names, and rows that come back as they were given."""

from __future__ import annotations

import pytest
from django.db import InterfaceError, OperationalError, transaction

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.errors import BackendUnavailableError, TaskAlreadyExistsError
from soc_tasks.meta import make_plain_headers
from soc_tasks.start_ids import make_start_id
from soc_tasks.values import RetryOptions
from tests.engine.tasks import done, make_task, names, rolled_back

DAY = 86400


def make_keyed(start_id=None, **fields):
    """Return a task as `startTask` makes it without a name: its row's key stands in what it is called."""
    start_id = start_id or make_start_id()
    return make_task(start_id=start_id, name=start_id, named=False, **fields)


def with_same_key(task):
    """Return another one of the same key, as two processes make them once in ages."""
    return make_keyed(task.name[:17] + make_start_id()[17:], queue=task.queue)


class NamesContract:
    """What becomes of names and rows."""

    def test_a_task_comes_back_as_it_was_given(self, store, clock, worker):
        task = make_task(
            "/prefix/count?a=1&b=%C3%A9",
            script_name="/prefix",
            body=bytes(range(256)),
            headers={"Content-Type": "text/plain", "X-Name": 'ü "quoted"'},
            eta=from_micros(clock.now() + 5 * SECOND),
            created=from_micros(clock.now() - SECOND),
            dispatch_deadline=15.5,
            retry=RetryOptions(max_attempts=3, min_backoff=0.5),
            service="a",
            version="b",
            instance="c",
            name="chosen",
        )
        store.add([task])
        assert store.get_task("default", "chosen").task == task
        clock.advance(5)
        (leased,) = store.exchange(worker, [], 10)
        assert leased.to_task() == task
        assert (leased.attempts, leased.responses, leased.first_attempt, leased.status) == (0, 0, None, None)

    @pytest.mark.parametrize(
        "different",
        [
            {},
            {"path": ["/a", "/b", "/b"], "script_name": ["/a", "", ""]},
            {"body": [b"", b"\x00\xff", b"NULL"], "headers": [{}, {"X": 'a "quoted", {part}\\'}, {"X": ""}]},
            {"queue": ["a", "b", "a"], "named": [False, True, True], "service": ["x", None, None]},
            {"retry": [None, RetryOptions(max_attempts=1), None], "dispatch_deadline": [1, None, 3.5]},
            {"eta": [from_micros(SECOND * second) for second in (4e9, 4e9 + 1, 5e9)]},
            {"created": [from_micros(SECOND * second) for second in (1, 2, 4e9)]},
        ],
    )
    def test_tasks_of_one_call_come_back_as_they_were_given(self, store, different):
        """Whatever they have in common; most of all, the headers of those that have none of their own."""
        tasks = []
        for number in range(3):
            start_id = f"{number + 1:032x}"
            alike = {
                "start_id": start_id,
                "name": start_id,
                "named": False,
                "headers": make_plain_headers(start_id),
                "eta": from_micros(4 * 10**15),
                "created": from_micros(SECOND),
            }
            tasks.append(make_task(**alike | {name: values[number] for name, values in different.items()}))
        store.add(tasks)
        assert [store.get_task(task.queue, task.name).task for task in tasks] == tasks

    def test_unset_options_stay_unset(self, store, worker):
        store.add([make_task()])
        task = store.exchange(worker, [], 1)[0].to_task()
        unset = (task.dispatch_deadline, task.retry, task.service, task.version, task.instance)
        assert unset == (None,) * 5
        assert task.named is False

    def test_a_name_is_taken_while_its_task_lives_and_a_day_longer(self, store, clock, worker):
        store.add([make_task(name="nightly")])
        with pytest.raises(TaskAlreadyExistsError, match="'nightly' in queue 'default'"):
            store.add([make_task(name="nightly")])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        assert store.get_task("default", "nightly") is None
        clock.advance(DAY - 1)
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="nightly")])
        clock.advance(1)
        store.add([make_task(name="nightly")])
        assert len(store.list_tasks()) == 1

    def test_a_name_that_nobody_chose_is_free_at_once(self, store, worker):
        task = make_task()
        store.add([task])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        store.add([task])
        assert names(store.list_tasks()) == [task.name]

    def test_a_task_that_nobody_named_is_found_by_its_key(self, store, worker):
        tasks = [make_keyed(), *(make_keyed(queue="other") for _ in range(3))]
        store.add(tasks[:1])
        store.add(tasks[1:])
        assert [store.get_task(task.queue, task.name).task.name for task in tasks] == names(tasks)
        assert store.get_task("default", tasks[1].name) is None
        assert store.get_task("default", make_start_id()) is None
        assert store.run_now("other", tasks[1].name)
        assert store.delete("other", tasks[2].name)
        assert not store.delete("other", tasks[2].name)
        assert not store.run_now("default", tasks[3].name)
        leased = store.exchange(worker, [], 9)
        assert sorted(names(leased)) == sorted([tasks[0].name, tasks[1].name, tasks[3].name])
        store.exchange(worker, done(*leased), 0)
        assert all(store.get_task(task.queue, task.name) is None for task in tasks)
        store.add(tasks)
        assert len(store.list_tasks()) == 4

    def test_what_one_call_adds_comes_in_its_order(self, store, worker):
        tasks = [make_keyed() for _ in range(300)]
        store.add(tasks)
        assert names(store.exchange(worker, [], 300)) == names(tasks)

    def test_a_task_that_nobody_named_is_accepted_once(self, store):
        tasks = [make_keyed() for _ in range(3)]
        assert store.accept(tasks[:2]) == 2
        assert store.accept([tasks[1], tasks[2], tasks[2]]) == 1
        assert sorted(names(store.list_tasks())) == names(tasks)
        with pytest.raises(TaskAlreadyExistsError):
            store.add(tasks[:1])
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_keyed(), tasks[0]])
        assert len(store.list_tasks()) == 3

    @pytest.mark.parametrize("take", ["add", "accept"])
    def test_two_tasks_of_one_key_are_two_tasks(self, store, worker, take):
        first = make_keyed()
        others = [with_same_key(first) for _ in range(3)]
        store.add([first])
        getattr(store, take)(others[:1])
        getattr(store, take)(others[1:])
        found = [store.get_task("default", task.name).task.start_id for task in (first, *others)]
        assert found == names([first, *others])
        assert store.accept([first, *others]) == 0
        # Nor do they come twice once the one is gone that had their key.
        assert store.delete("default", first.name)
        assert store.accept(others) == 0
        store.add([first])
        assert store.delete("default", others[1].name)
        assert sorted(names(store.exchange(worker, [], 9))) == sorted(names([first, others[0], others[2]]))

    def test_a_chosen_name_may_have_the_form_of_a_key(self, store, clock, worker):
        keyed, chosen = make_keyed(), make_task(name=make_start_id())
        store.add([keyed])
        store.add([chosen, make_task(name=keyed.name, queue="other")])
        assert store.get_task("default", chosen.name).task.start_id == chosen.start_id
        # Who would choose the name of a task that nobody named learns that it is taken, whoever asks first.
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name=keyed.name)])
        assert store.accept([make_task(name=keyed.name)]) == 0
        asked = [make_task(name=keyed.name), make_task(name=chosen.name), make_task(name=make_start_id())]
        assert names(store.find_taken(asked)) == [keyed.name, chosen.name]
        store.exchange(worker, done(*store.exchange(worker, [], 3)), 0)
        # Only a chosen name is kept.
        assert names(store.find_taken(asked)) == [chosen.name]
        assert store.get_task("default", chosen.name) is None
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_keyed(chosen.name)])
        assert store.accept([make_keyed(chosen.name)]) == 0
        clock.advance(DAY)
        store.add([make_keyed(chosen.name)])
        assert store.get_task("default", chosen.name)

    def test_names_differ_by_case_and_by_queue(self, store):
        store.add([make_task(name="Name"), make_task(name="name"), make_task(name="name", queue="other")])
        assert len(store.list_tasks()) == 3

    def test_all_or_none_are_added(self, store):
        store.add([make_task(name="two")])
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="one"), make_task(name="two"), make_task(name="three")])
        with pytest.raises(TaskAlreadyExistsError, match="twice"):
            store.add([make_task(name="same"), make_task(name="same")])
        assert names(store.list_tasks()) == ["two"]

    def test_a_taken_name_does_not_break_the_transaction_of_the_caller(self, store):
        store.add([make_task(name="taken")])
        with transaction.atomic(using=store.alias):
            store.add([make_task(name="before")])
            with pytest.raises(TaskAlreadyExistsError):
                store.add([make_task(name="taken")])
            with pytest.raises(TaskAlreadyExistsError):
                store.add([make_task(name="a"), make_task(name="taken")])
            store.add([make_task(name="after")])
        assert sorted(names(store.list_tasks())) == ["after", "before", "taken"]

    def test_more_tasks_than_one_statement_takes(self, store, worker):
        tasks = [make_task(body=b"x" * 10) for _ in range(1234)]
        store.add(tasks)
        assert len(store.list_tasks(limit=2000)) == 1234
        with pytest.raises(TaskAlreadyExistsError):
            store.add([*[make_task() for _ in range(700)], tasks[0]])
        assert len(store.list_tasks(limit=2000)) == 1234
        # All became due at once: in the order in which they were given.
        assert names(store.exchange(worker, [], 100)) == names(tasks[:100])

    def test_more_bytes_than_one_statement_takes(self, store):
        body = bytes(range(256)) * 4000
        store.add([make_task(name=f"t{number}", body=body) for number in range(10)])
        assert len(store.list_tasks()) == 10
        assert store.get_task("default", "t9").task.body == body

    def test_nothing_is_added_in_a_transaction_that_rolls_back(self, store):
        with rolled_back(using=store.alias):
            store.add([make_task()])
        assert store.list_tasks() == []

    def test_accept_takes_what_came_already_for_success(self, store, clock, worker):
        old, new = make_task(name="old"), make_task(name="new")
        store.add([old])
        assert store.accept([old, new]) == 1
        store.exchange(worker, done(*store.exchange(worker, [], 2)), 0)
        assert store.accept([old, new]) == 0
        assert store.list_tasks() == []
        clock.advance(DAY)
        assert store.accept([old]) == 1

    def test_a_task_that_comes_twice_is_accepted_once(self, store):
        task = make_task(name="one")
        assert store.accept([task, task, task]) == 1
        assert names(store.list_tasks()) == ["one"]

    def test_find_taken(self, store, clock, worker):
        store.add([make_task(name="gone")])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        store.add([make_task(name="there"), make_task(name="there", queue="other")])
        asked = [make_task(name=name) for name in ("gone", "there", "free")]
        assert names(store.find_taken([*asked, make_task()])) == ["gone", "there"]
        clock.advance(DAY)
        assert names(store.find_taken(asked)) == ["there"]

    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    def test_a_database_that_is_gone_is_unavailable_whatever_is_asked(self, store, monkeypatch, error):
        def fail(*_):
            raise error("the connection is gone")

        tasks = [make_task(name="named"), make_task()]
        monkeypatch.setattr(type(store), "cursor", fail)
        for call in (store.add, store.accept, store.find_taken):
            with pytest.raises(BackendUnavailableError, match=r"database 'engine_database': the connection is gone\."):
                call(tasks)

    def test_options_of_a_newer_release_are_passed_over(self, store, worker):
        store.add([make_task(retry=RetryOptions(max_attempts=3))])
        (leased,) = store.exchange(worker, [], 1)
        newer = leased._replace(options='{"retry": {"max_attempts": 4, "jitter": true}, "region": "x"}')
        assert newer.to_task().retry == RetryOptions(max_attempts=4)
