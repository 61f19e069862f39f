"""New tasks in random histories: names that are free, taken, or there twice; transactions that end this way or that."""

from __future__ import annotations

import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.start_ids import make_start_id
from soc_tasks.values import Task
from tests.contracts.chances import numbers, queues, tasks
from tests.contracts.model import TakenError
from tests.engine.tasks import rolled_back


class Adding(RuleBasedStateMachine):
    """The part of a machine that adds."""

    _count = 0

    def make(self, given):
        queue, name, countdown, retry = given
        self._count += 1
        now = self.clock.now()
        start_id = make_start_id()
        return Task(
            queue=queue,
            name=name or start_id,
            path=f"/{self._count}",
            body=b"body",
            eta=None if countdown is None else from_micros(now + round(countdown * SECOND)),
            created=from_micros(now),
            retry=retry,
            start_id=start_id,
            named=name is not None,
        )

    def add_all(self, given):
        made = [self.make(one) for one in given]
        try:
            self.model.add(made)
        except TakenError:
            with pytest.raises(TaskAlreadyExistsError):
                self.store.add(made)
        else:
            self.store.add(made)

    @rule(
        given=st.lists(tasks, max_size=4),
        queue=queues | st.sampled_from(("slow", "fast")),
        count=st.sampled_from((0, 14)),
    )
    def add(self, given, queue, count):
        self.add_all([*given, *[(queue, None, None, None)] * count])

    @rule(given=st.lists(tasks, max_size=4), again=st.lists(numbers, min_size=1, max_size=2))
    def accept(self, given, again):
        made = [self.make(one) for one in given]
        there = [item.task for item in self.model.list_tasks()]
        made += [there[number % len(there)] for number in again if there]
        assert self.store.accept(made) == self.model.accept(made)

    @rule(
        parts=st.lists(st.tuples(st.lists(tasks, max_size=2), st.booleans()), min_size=1, max_size=3),
        commits=st.booleans(),
    )
    def add_in_a_transaction(self, parts, commits):
        """Each part behind a savepoint, to which some roll back."""
        alias, outer = self.store.alias, self.model.save()
        with transaction.atomic(using=alias) if commits else rolled_back(using=alias):
            for given, keeps in parts:
                inner = self.model.save()
                with transaction.atomic(using=alias) if keeps else rolled_back(using=alias):
                    self.add_all(given)
                if not keeps:
                    self.model.restore(inner)
        if not commits:
            self.model.restore(outer)

    @precondition(lambda self: self.model.ended)
    @rule(number=numbers, early=st.integers(0, 1), accepts=st.booleans())
    def add_again(self, number, early, accepts):
        """Ask for a name when it is free again, or just before."""
        queue, name = sorted(self.model.ended)[number % len(self.model.ended)]
        left = self.model.ended[queue, name] - early - self.clock.now()
        self.clock.advance(max(0, left) / SECOND)
        if accepts:
            made = [self.make((queue, name, None, None))]
            assert self.store.accept(made) == self.model.accept(made)
        else:
            self.add_all([(queue, name, None, None)])
