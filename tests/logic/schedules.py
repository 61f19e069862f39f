"""Deliveries of slices in any order: twice, late, within each other, killed, failing; paused and limited meanwhile.

A delivery within another stands for a worker beside it: what is not atomic runs its view outside of transactions. The
clock stands, but for leases of the killed, which it lets end.
"""

from __future__ import annotations

import time
from datetime import timedelta

from soc_tasks import Iteration
from soc_tasks.backends import get_backend
from soc_tasks.logic import stealing
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import start_run
from soc_tasks.logic.slice_runs import EarlySliceError
from soc_tasks.logic.slices import HandedOverError, run_slice
from soc_tasks.meta import Inherited, read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import ShardBusyError
from tests.specimen.models import Tag

RUN = "0123456789abcdef" * 2
#: So much longer than a lease that its end is noticed.
LATER = timedelta(seconds=40)


class KilledError(BaseException):
    """The process is gone."""


class FailedError(Exception):
    """The view failed."""


def lopsided(queryset, shard_count):
    """Put nearly all rows into the last range."""
    name = queryset.query.order_by[0]
    values = [value for value in dict.fromkeys(queryset.values_list(name, flat=True)) if value is not None]
    bounds = values[1:shard_count]
    return list(zip([None, *bounds], [*bounds, None], strict=True))


class Schedule:
    """A run whose deliveries are chosen by chance.

    Args:
        monkeypatch: to catch what is queued, and to set the clock.
        chance: a `random.Random`.
        logic: what is iterated over.
        atomic: whether batches are.
        most: how many of the deliveries go wrong at most.
    """

    def __init__(self, monkeypatch, chance, logic, *, atomic, shards=4, most=30, control=True, batch_size=3):
        self.chance, self.atomic, self.most, self.control = chance, atomic, most, control
        self.waiting, self.delivered, self.ends, self.depth, self.work = [], [], 0, 0, []
        self.now = get_state().now()
        monkeypatch.setattr(type(get_state()), "now", lambda state: self.now)
        monkeypatch.setattr(get_backend(), "submit", self.submit)
        find = stealing.find_key_behind
        monkeypatch.setattr(stealing, "find_key_behind", lambda *args: self.overtaken(find(*args)))
        self.plan = Plan(
            logic=logic,
            atomic=atomic,
            shards=shards,
            key_ranges_getter=lopsided,
            finalize=self.end,
            batch_size=batch_size,
        )
        start_run(
            start_id=RUN,
            name="run",
            path="/x",
            script_name="",
            plan=self.plan,
            context={},
            inherited=Inherited(queue="default"),
        )

    def overtaken(self, cut):
        """Let others work between the look for a cut and the transaction that makes it."""
        if self.depth < 3 and self.chance.random() < 0.4:
            self.deliver_some(self.chance.randint(1, 3))
        return cut

    def submit(self, tasks, using=None):
        self.waiting += [read_meta(task).slice for task in tasks]

    def end(self):
        self.ends += 1

    def happens(self, share):
        """Tell whether something goes wrong this time."""
        if self.most <= 0 or self.chance.random() >= share:
            return False
        self.most -= 1
        return True

    def process(self, entities, context):
        if not self.atomic and self.depth < 3 and self.waiting and self.chance.random() < 0.6:
            self.deliver_some(self.chance.randint(1, 3))
        if not self.atomic and self.happens(0.1):
            raise KilledError
        if self.happens(0.1):
            raise FailedError
        Tag.objects.bulk_create(Tag(name=str(entity.pk)) for entity in entities)
        self.work.append(len(entities))
        if self.atomic and self.happens(0.2):
            raise KilledError if self.chance.random() < 0.5 else FailedError

    def deliver_some(self, number):
        for _ in range(number):
            if self.waiting:
                self.deliver(self.chance.choice(self.waiting))

    def deliver(self, message):
        started = time.monotonic()
        seconds = self.chance.choice([0, 60])
        budget = Budget(seconds=seconds, stopping=lambda: False, started=started, deadline=started + 60)
        self.depth += 1
        try:
            run_slice(message, self.plan, self.process, budget, lambda error: False, lambda context: self.end())
        except (ShardBusyError, EarlySliceError, FailedError):
            return
        except KilledError:
            if self.depth == 1:
                self.now += LATER
                return
            raise
        except HandedOverError:
            pass
        finally:
            self.depth -= 1
        if message in self.waiting:
            self.waiting.remove(message)
        self.delivered.append(message)

    def interfere(self):
        iteration = Iteration.get(RUN)
        what = self.chance.randrange(6)
        if what == 0:
            iteration.pause()
        elif what == 1:
            iteration.resume()
        elif what in (2, 3):
            iteration.set_concurrency(self.chance.choice([1, 2, 3, None]))
        elif self.delivered:
            # A copy, or one that the queue had lost sight of.
            self.waiting.append(self.chance.choice(self.delivered))

    def go(self, steps=3000):
        """Deliver until nothing is left; a pause ends in the end."""
        for _ in range(steps):
            if self.control and self.most > 0 and self.chance.random() < 0.15:
                self.most -= 1
                self.interfere()
            if not self.waiting:
                if Iteration.get(RUN).status != "paused":
                    return
                Iteration.get(RUN).resume()
            # Leases of the killed end.
            self.now += timedelta(seconds=self.chance.choice([0, 0, 0, 40]))
            self.deliver_some(1)
        raise AssertionError(f"it does not come to its end: {self.waiting} {get_state().list_shards(RUN)}")

    def find_wrong(self, keys):
        """Return what is not as one pass over the rows leaves it."""
        iteration, state = Iteration.get(RUN), get_state().get_iteration(RUN)
        found = {
            "status": iteration.status, "done": iteration.done, "shards": {shard.status for shard in iteration.shards},
            "unfinished": state.unfinished, "parked": state.parked, "ends": self.ends,
        }  # fmt: skip
        wanted = {
            "status": "succeeded", "done": len(keys), "shards": {"done"}, "unfinished": 0, "parked": 0, "ends": 1,
        }  # fmt: skip
        wrong = {name: value for name, value in found.items() if value != wanted[name]}
        visits = sorted(Tag.objects.values_list("name", flat=True))
        if visits != sorted(map(str, keys)):
            wrong["visits"] = visits
        return wrong
