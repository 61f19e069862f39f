"""Dataclasses that nobody changes, without what that costs at each construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform, overload

Value = TypeVar("Value")


@overload
def frozen(kind: type[Value], /) -> type[Value]: ...


@overload
def frozen(*, kw_only: bool) -> Callable[[type[Value]], type[Value]]: ...


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(kind: Any = None, /, *, kw_only: bool = True) -> Any:
    """Make a class a dataclass that type checkers hold to be frozen.

    For values that are made with every task or call. A dataclass that is frozen at run time sets each field by a call:
    those of one call of a task took a tenth of its time (Python 3.11).

    Args:
        kind: the class, where the decorator is used bare.
        kw_only: whether its fields are given by name alone.
    """
    make = dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
    return make if kind is None else make(kind)
