"""What iterations ask of a logic beyond `getBatchOfData`, by one name: `FullLogic`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final

#: The most entities of one batch (Melange's limit, which was the Datastore's).
MAX_BATCH_SIZE: Final = 1000

#: Keys of a logic from which on, and before which; None is an open end.
KeyRange = tuple[str | None, str | None]


class CountedRanges(list[Any]):
    """Ranges that know how many entities they hold, or a cheap way to find out: a list like any other.

    Args:
        ranges: what they are.
        count: returns how many are in each, in their order.
    """

    def __init__(self, ranges: Iterable[Any], count: Callable[[], list[int]]) -> None:
        super().__init__(ranges)
        self.count_each = count

    def like(self, ranges: list[Any]) -> list[Any]:
        """Return the same ranges in another form, which know it still; where some are missing, they do not."""
        return CountedRanges(ranges, self.count_each) if len(ranges) == len(self) else ranges


def split_evenly(total: int, parts: int) -> list[int]:
    """Return whole numbers that add up to a total, and differ by one at most."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]


class FullLogic(ABC):
    """A logic that can be ordered, counted, narrowed by what is posted, and divided into shards.

    Any object with `getBatchOfData` serves as a logic; what only these can do is refused of others, or left out.
    """

    #: The order of its keys where none is asked for; "-" before it for a falling one.
    order_field: str
    #: The order in which no entity ever moves.
    key_order: str = "pk"
    #: Entities in a batch where no number is asked for.
    batch_size: int
    #: Whether batch_size is a beginning only, since nobody gave one.
    is_paced: bool = False
    #: Whether the entities are in Google's Datastore, and not in one of Django's databases.
    in_datastore: bool = False

    @property
    @abstractmethod
    def using(self) -> str | None:
        """Return the alias of the database that is read; None outside Django's databases."""

    @abstractmethod
    def on(self, using: str) -> FullLogic:
        """Return the same logic on another database alias."""

    @abstractmethod
    def getBatchOfData(
        self,
        filter: Any = None,
        start_key: str | None = None,
        batch_size: int | None = None,
        *,
        order: str | None = None,
        end_key: str | None = None,
    ) -> tuple[list[Any], str | None]:
        """Return one batch of entities and the key of the next."""

    @abstractmethod
    def count(self, filter: Any = None) -> int | None:
        """Return how many entities there are."""

    @abstractmethod
    def get_key(self, entity: Any, *, order: str | None = None) -> str:
        """Return the key at which a batch begins with `entity`."""

    @abstractmethod
    def check_filter(self, given: Any) -> dict[str, Any]:
        """Return an untrusted filter made safe; ValueError where it cannot be."""

    @abstractmethod
    def join_filters(self, ours: Any, posted: dict[str, Any]) -> Any:
        """Return the filter that is both of two that are not empty."""

    @abstractmethod
    def missing_index(self, order: str | None = None) -> str | None:
        """Return which index the order lacks, as a sentence, or None; ValueError where it is no order."""

    @abstractmethod
    def find_key_ranges(
        self,
        shard_count: int,
        *,
        filter: Any = None,
        order: str | None = None,
        getter: Callable[[Any, int], Any] | None = None,
    ) -> list[KeyRange]:
        """Return the ranges of keys of at most so many shards, by a getter of one's own or by its own.

        `CountedRanges`, where their making has told how many entities each has: they are not counted again.
        """


def check_batch_size(size: Any) -> int:
    """Return the size of a batch, or raise ValueError where it is none."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_BATCH_SIZE:
        raise ValueError(f"batch_size must be a whole number from 1 to {MAX_BATCH_SIZE}, not {size!r}.")
    return size


def take_start_key(filter: Any, start_key: str | None) -> tuple[Any, str | None]:
    """Return filter and start key, where a str in the place of the filter is the start key.

    Raises:
        TypeError: both places hold one.
    """
    if not isinstance(filter, str):
        return filter, start_key
    if start_key is not None:
        raise TypeError("getBatchOfData() got two start keys: a str in the place of filter is one.")
    return None, filter
