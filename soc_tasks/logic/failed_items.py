"""The ledger of failed items as a source: what an iteration gave up is tried again by a run of its own.

That run takes the path, the context and the plan of the first one, but its entities are the ledger's, found by their
keys. What succeeds leaves the ledger in the transaction that moves the cursor past it; what fails again stays, with its
new error; what is gone, or no longer among the entities of the plan, leaves it, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from soc_tasks.errors import SocTasksError
from soc_tasks.logic.plans import Plan, Source
from soc_tasks.logic.runs import begin_run
from soc_tasks.start_ids import make_start_id
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.values import FailedItem

#: Entities of a batch where the plan does not say.
BATCH_SIZE = 100


class RetryRunningError(SocTasksError):
    """Failed items of this iteration are being tried again already."""


class NotRetriableError(SocTasksError):
    """What the iteration needs to try its failed items again is gone."""


@dataclasses.dataclass(slots=True, kw_only=True)
class LedgerSource:
    """The failed items of one iteration, as entities of another that tries them again.

    Args:
        source: where they come from.
        origin: id of the iteration that gave them up.
        retry: id of the one that tries them again.
        ids: those that are meant; None: all up to `last`.
        last: the highest id that is meant.
        items, entities: of the batch that was fetched.
        gone: ids of those in it that are no more.
    """

    source: Source
    origin: str
    retry: str
    ids: list[int] | None
    last: int
    items: list[FailedItem] = dataclasses.field(default_factory=list)
    entities: list[Any] = dataclasses.field(default_factory=list)
    gone: list[int] = dataclasses.field(default_factory=list)
    start_key: None = None

    @property
    def logic(self) -> Any:
        """Return where the entities come from."""
        return self.source.logic

    @property
    def first_size(self) -> int | None:
        """Return how many entities the first batch has where they steer themselves."""
        return self.source.first_size

    @property
    def batch_size(self) -> int:
        """Return how many entities a batch has."""
        size = self.source.batch_size or getattr(self.source.logic, "batch_size", None)
        return size if isinstance(size, int) else BATCH_SIZE

    def fetch(self, start_key: str | None, *, end_key: str | None = None, limit: int | None = None) -> Any:
        """Return the entities of the items from an id on, and the id of the next item."""
        state, size = get_state(), limit or self.batch_size
        self.items, self.entities, self.gone = [], [], []
        origin = state.get_iteration(self.origin)
        if origin is None or origin.options.get("retry") != self.retry:
            # Another retry has taken their place since this one failed.
            return [], None
        found = state.list_failed_items(self.origin, since=int(start_key or 0), ids=self.ids, limit=size + 1)
        found = [item for item in found if item.id <= self.last]
        for item in found[:size]:
            entities = self.source.find_item(item)
            if not entities:
                self.gone.append(item.id)
                continue
            self.items.append(item)
            self.entities += entities
        return list(self.entities), str(found[size].id) if len(found) > size else None

    def get_key(self, entity: Any, place: int) -> str:
        """Return the key at which a batch begins with an entity of the last one."""
        return str(self._find(entity, place).id)

    def get_item_key(self, entity: Any, key: str | None, next_key: str | None) -> str:
        """Return the key of the batch: what is given up is there already, with its own."""
        return key or ""

    def give_up(self, entity: Any, place: int, item: FailedItem) -> None:
        """Keep the new error of an item."""
        before = self._find(entity, place)
        get_state().save_failed_item(dataclasses.replace(item, id=before.id, attempts=before.attempts + 1))

    def settle(self, entities: list[Any]) -> bool:
        """Drop the items whose entities are done, and those that are gone; return whether the former were all there.

        They are not where another retry has come in between: this one was cancelled then, during this batch.
        """
        state = get_state()
        ids = list(dict.fromkeys(self._find(entity, place).id for place, entity in enumerate(entities)))
        if self.gone:
            state.drop_failed_items(self.gone)
        return not ids or state.drop_failed_items(ids) == len(ids)

    def _find(self, entity: Any, place: int) -> FailedItem:
        """Return the item of an entity by its place in the batch: two entities may be equal, or even the same."""
        if not self.source.is_in_datastore:
            return self.items[place]
        # These are read once more in the transaction: what is gone by then is left out, so that others move up.
        return next(item for item, known in zip(self.items, self.entities, strict=True) if known.key == entity.key)


def open_source(plan: Plan, source: Source, iteration: IterationRecord) -> tuple[Plan, Source | LedgerSource]:
    """Return what an iteration works off, and by which plan: of a retry, the ledger of the iteration before it.

    Args:
        plan, source: those of the view.
        iteration: which iteration.
    """
    origin = iteration.options.get("retries")
    if origin is None:
        return plan, source
    ledger = LedgerSource(
        source=source,
        origin=origin,
        retry=iteration.id,
        ids=iteration.options["items"],
        last=iteration.options["last"],
    )
    return dataclasses.replace(plan, on_error="skip", error_budget=None, finalize=None, repeat_in=None), ledger


def find_plan(iteration: IterationRecord) -> tuple[str, int | None]:
    """Return by which id the plan of an iteration is kept, and how many entities it was made for."""
    options = iteration.options
    return options.get("retries", iteration.id), options.get("rows", iteration.total)


def start_retry(iteration_id: str, ids: Sequence[int] | None) -> str | None:
    """Begin a run over the failed items of an iteration, in one transaction.

    Args:
        iteration_id: which iteration; of a retry, the one whose items it tried again.
        ids: the items that are meant; None: all.

    Returns:
        The id of the run: of the one that is under way, if all are meant; None where there are no items.

    Raises:
        LookupError: there is no such iteration, or no such item of it.
        RetryRunningError: some are meant, and a retry is under way.
        NotRetriableError: the plan of a deferred iteration was cleared.
    """
    wanted = None if ids is None else sorted(set(ids))
    return get_state().run(lambda: _start_retry(iteration_id, wanted))


def _start_retry(iteration_id: str, wanted: list[int] | None) -> str | None:
    state = get_state()
    origin = state.get_iteration(iteration_id, lock=True)
    if origin is None:
        raise LookupError(f"There is no iteration {iteration_id!r}.")
    before = state.get_iteration(origin.options.get("retry", ""))
    if before is not None and before.status in ("running", "paused"):
        if wanted is None:
            return before.id
        raise RetryRunningError(
            f"Failed items of iteration {origin.id} are being tried again by {before.id}, which is "
            f"{before.status}; wait for its end, or cancel it."
        )
    number, last = state.count_failed_items(origin.id, ids=wanted)
    if wanted is not None and number < len(wanted):
        raise LookupError(
            f"Iteration {origin.id} has not all of these failed items (any more); it has "
            f"{number:,} of the {len(wanted):,}. `tasks iterations failed {origin.id}` lists them."
        )
    if not number:
        return None
    if state.get_payload(origin.id) == b"":
        raise NotRetriableError(
            f"The queryset and the functions of iteration {origin.id} were dropped when it was cancelled, so that "
            "its failed items cannot be tried again; start it anew over them."
        )
    taken = ("path", "script_name", "inherited", "context", "selection")
    options = {name: origin.options[name] for name in taken if name in origin.options}
    retry = IterationRecord(
        id=make_start_id(),
        name=origin.name,
        total=number,
        options={
            **options,
            "shards": 1,
            "repeats": False,
            "retries": origin.id,
            "rows": origin.total,
            "items": wanted,
            "last": last,
        },
    )
    begin_run(retry, [ShardRecord(iteration=retry.id, index=0, context=retry.options["context"])])
    origin.options["retry"] = retry.id
    state.save_options(origin)
    return retry.id
