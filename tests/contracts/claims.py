"""What a worker is given, held to the model: no more than may go, nothing passed over, and fair among queues."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from hypothesis.stateful import RuleBasedStateMachine

from soc_tasks.engine.clock import from_micros
from soc_tasks.engine.rates import AT_ONCE
from tests.contracts.chances import NAMES
from tests.contracts.reads import agree


class Claims(RuleBasedStateMachine):
    """The part of a machine that judges claims."""

    def check_claim(self, worker, leased, limit, among):
        """See that what was claimed could be, in order, and that nothing was passed over; note it."""
        model, now = self.model, self.clock.now()
        assert len(leased) <= limit
        assert [(one.due, one.id) for one in leased] == sorted((one.due, one.id) for one in leased)
        if limit == 0:
            return
        most, least, heads, asked = {}, {}, {}, False
        taken = Counter(one.queue for one in leased)
        for queue in NAMES if among is None else among:
            due = model.due_in(queue)
            urgent = [item for item in due if item.asked is not None]
            low, high = model.room(queue)
            most[queue] = len(urgent) + min(high, len(due) - len(urgent))
            least[queue] = len(urgent) + min(low, len(due) - len(urgent))
            claimed = [one for one in leased if one.queue == queue]
            # The first of them, and no others.
            assert [one.name for one in claimed] == [item.task.name for item in due[: len(claimed)]]
            if len(claimed) > most[queue]:
                raise AssertionError(f"{len(claimed)} tasks of queue {queue}, and not {most[queue]} at most")
            heads[queue], asked = due[0].order if due else None, asked or bool(urgent)
            if due and queue not in model.paused and (model.buckets[queue].rate or model.buckets[queue].pressed):
                normal = sum(one.due > AT_ONCE for one in claimed)
                model.buckets[queue].take(normal, now)
                model.buckets[queue].check(normal, self.clock.monotonic())
        assert taken.keys() <= most.keys()
        if worker not in model.workers:
            # It has looked at the buckets, and no more.
            assert leased == []
            return
        ready = [queue for queue in least if least[queue]]
        if asked:
            # What is asked for has turns of its own.
            assert leased or not ready
        elif ready:
            part = math.ceil(limit / len([queue for queue in most if most[queue]]))
            assert len(leased) >= min(limit, sum(min(least[queue], part) for queue in ready))
            for queue in ready:
                if taken[queue] == least[queue]:
                    continue
                # It was left wanting: nobody had two turns more, and a first turn only who waits for as long.
                assert max(taken.values()) <= taken[queue] + 1
                assert taken[queue] or all(heads[other][0] <= heads[queue][0] for other in taken)
        for one in leased:
            self.check_lease(worker, one, alone=False)

    def check_lease(self, worker, leased, *, alone):
        item = self.model.items[(leased.queue, leased.name)]
        task = dataclasses.replace(item.task, eta=from_micros(item.due) if item.asked is None else None)
        agree(leased.to_task(), task)
        item.state, item.owner, item.alone = "running", worker, alone
        if alone:
            item.progress = str(self.model.progress[item.key])
            agree(leased.progress, item.progress)
        fields = ("owner", "attempts", "responses", "first_attempt", "status", "busy", "crashes", "unknown")
        agree(*[{field: getattr(one, field) for field in fields} for one in (leased, item)])
        assert bool(leased.alone) == alone
        self.memory[worker].pop(item.key, None)
        self.memory[worker][item.key] = leased
