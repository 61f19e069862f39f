"""What the arguments of deferred functions may hold beyond typed JSON.

Functions, classes and bound methods by reference, partials, enum members, dataclasses, named tuples, model instances as
they are, querysets, what is Datastore's, and dicts with keys of any type.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

from django.db.models import Manager, Model, QuerySet

from soc_tasks.errors import PayloadError
from soc_tasks.logic import datastore_values, instances, querysets, references
from soc_tasks.logic.payloads import UnknownNameError

Pack = Callable[[Any, str], Any]
Unpack = Callable[[Any], Any]


class Arguments:
    """The types of arguments, as an extension of typed JSON.

    Args:
        related: whether instances that others have in their caches travel with them.
        paged: whether querysets that come are read in many small parts.
    """

    tags: Final = frozenset(
        {"enum", "model", "queryset", "class", "function", "method", "partial", "dataclass", "namedtuple"}
        | datastore_values.TAGS
    )

    def __init__(self, *, related: bool = False, paged: bool = False) -> None:
        self._related = related
        self._paged = paged
        #: Instances within which others are being packed: two often have each other in their caches.
        self._open: list[Model] = []
        #: Whether what was packed holds SQL, which never travels in a message.
        self.has_query = False

    def pack(self, value: Any, path: str, pack: Pack) -> tuple[str, Any] | None:
        """Return tag and plain form of a value, or None where it is of another type."""
        if isinstance(value, type):
            return "class", references.name_of(value, path)
        if isinstance(value, MethodType):
            return "method", self._pack_method(value, path, pack)
        if callable(value) and isinstance(getattr(value, "__qualname__", None), str):
            # What a decorator made of a function, too.
            return "function", references.name_of(value, path)
        if isinstance(value, partial):
            return "partial", [
                pack(value.func, f"{path}.func"),
                pack(list(value.args), f"{path}.args"),
                pack(dict(value.keywords), f"{path}.keywords"),
            ]
        if isinstance(value, Enum):
            known_by = value.value if isinstance(value, Flag) else value.name
            return "enum", [references.name_of(type(value), f"the class of {path}"), pack(known_by, path)]
        if isinstance(value, Model):
            return "model", self._pack_instance(value, path, pack)
        if isinstance(value, QuerySet):
            self.has_query = True
            return "queryset", querysets.pack_queryset(value, path, pack)
        if isinstance(value, Manager):
            raise PayloadError(f"{path} is a manager, which cannot travel; pass a queryset, as all() returns it.")
        if dataclasses.is_dataclass(value):
            return "dataclass", self._pack_dataclass(value, path, pack)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            name = references.name_of(type(value), f"the class of {path}")
            items = [pack(item, f"{path}.{field}") for field, item in zip(value._fields, value, strict=True)]
            return "namedtuple", [name, items]
        tag = datastore_values.find_tag(value)
        return None if tag is None else (tag, datastore_values.pack_value(tag, value, path, pack))

    def _pack_method(self, method: MethodType, path: str, pack: Pack) -> list[Any]:
        name = getattr(method.__func__, "__name__", "")
        if not _is_method_name(name) or _find_method(method.__self__, name) != method:
            raise PayloadError(
                f"{path} is a bound method whose name {name!r} leads to something else or begins with '__', or whose "
                "class may not be followed (see SOC_TASKS['DEFERRABLE'])."
            )
        return [pack(method.__self__, f"{path}.__self__"), name]

    def _pack_instance(self, instance: Model, path: str, pack: Pack) -> dict[str, Any]:
        related: Mapping[str, Model] = {}
        if self._related:
            related = {
                name: cached
                for name, cached in instance._state.fields_cache.items()
                if isinstance(cached, Model) and not any(cached is each for each in (*self._open, instance))
            }
        self._open.append(instance)
        try:
            return instances.pack_instance(instance, path, pack, related)
        finally:
            self._open.pop()

    @staticmethod
    def _pack_dataclass(value: Any, path: str, pack: Pack) -> list[Any]:
        kind = type(value)
        if isinstance(value, (str, int, float, bytes, list, dict, tuple, set, frozenset, BaseException)):
            raise PayloadError(
                f"{path} is a dataclass that is derived from one of Python's own types, which cannot travel; give it "
                "a codec (register_codec)."
            )
        known = [field.name for field in dataclasses.fields(value)]
        fields = {name: pack(getattr(value, name), f"{path}.{name}") for name in known if hasattr(value, name)}
        # What __post_init__ set beside the fields, say.
        extra = {
            name: pack(item, f"{path}.{name}")
            for name, item in getattr(value, "__dict__", {}).items()
            if name not in known and not name.startswith("__") and not instances.is_cached_property(kind, name)
        }
        return [references.name_of(kind, f"the class of {path}"), fields, *([extra] if extra else [])]

    def unpack(self, tag: str, inner: Any, unpack: Unpack) -> Any:
        """Return the value of a tag."""
        if tag in ("class", "function"):
            return _find(inner, type if tag == "class" else Callable)
        if tag == "model":
            return instances.unpack_instance(inner, unpack)
        if tag == "queryset":
            return querysets.unpack_queryset(inner, unpack, paged=self._paged)
        if tag in datastore_values.TAGS:
            return datastore_values.unpack_value(tag, inner, unpack)
        if not isinstance(inner, list):
            raise ValueError(f"what is tagged {tag!r} is none")
        if tag == "partial":
            function, args, keywords = (unpack(part) for part in _parts(tag, inner, 3))
            return partial(function, *args, **keywords)
        if tag == "dataclass":
            return _make_dataclass(inner, unpack)
        first, second = _parts(tag, inner, 2)
        if tag == "method":
            return self._unpack_method(unpack(first), second)
        kind = _find(first, type)
        if tag == "enum":
            return _find_member(kind, unpack(second))
        return _make_namedtuple(kind, second, unpack)

    @staticmethod
    def _unpack_method(owner: Any, name: Any) -> Any:
        if not isinstance(name, str) or not _is_method_name(name):
            raise ValueError("what is tagged 'method' is none")
        method = _find_method(owner, name)
        if method is None:
            kind = owner if isinstance(owner, type) else type(owner)
            raise UnknownNameError(f"{kind.__qualname__} has no method {name:.100} here.")
        return method


def _parts(tag: str, inner: list[Any], count: int) -> list[Any]:
    if len(inner) != count:
        raise ValueError(f"what is tagged {tag!r} is none")
    return inner


def _find(name: Any, kinds: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError("a name is no text")
    found = references.find(name)
    if not isinstance(found, kinds):
        raise UnknownNameError(f"{name:.200} is something else here.")
    return found


def _is_method_name(name: str) -> bool:
    return name.isidentifier() and not name.startswith("__")


def _find_method(owner: Any, name: str) -> Any:
    """Return a bound method, or None; properties and instances that can be called are none."""
    static = inspect.getattr_static(owner, name, None)
    if not isinstance(static, (FunctionType, classmethod)):
        return None
    method = getattr(owner, name)
    good = isinstance(method, MethodType) and references.may_be_followed(method.__func__.__module__)
    return method if good else None


def _find_member(kind: Any, known_by: Any) -> Any:
    if not issubclass(kind, Enum):
        raise UnknownNameError(f"{kind.__qualname__} is no enum here.")
    try:
        return kind(known_by) if issubclass(kind, Flag) else kind[known_by]
    except (KeyError, ValueError) as error:
        raise UnknownNameError(f"{kind.__qualname__} has no {known_by!r:.100} here.") from error


def _make_dataclass(inner: list[Any], unpack: Unpack) -> Any:
    """Return a dataclass with the values that it had: neither __init__ nor __post_init__ is called again."""
    name, packed, extra = _parts("dataclass", inner, 3) if len(inner) != 2 else (*inner, {})
    if not isinstance(packed, dict) or not isinstance(extra, dict):
        raise ValueError("what is tagged 'dataclass' is none")
    kind = _find(name, type)
    if not dataclasses.is_dataclass(kind):
        raise UnknownNameError(f"{name} is no dataclass here.")
    known = {field.name: field for field in dataclasses.fields(kind)}
    if missing := packed.keys() - known.keys():
        raise UnknownNameError(f"{name} has no {', '.join(sorted(missing)):.200} here.")
    value: Any = object.__new__(kind)  # type: ignore[arg-type] # it is a class
    for field in known.values():
        if field.name in packed:
            object.__setattr__(value, field.name, unpack(packed[field.name]))
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default_factory())
    for attribute, item in extra.items():
        object.__setattr__(value, attribute, unpack(item))
    return value


def _make_namedtuple(kind: Any, packed: Any, unpack: Unpack) -> Any:
    fields = getattr(kind, "_fields", None)
    if not issubclass(kind, tuple) or not isinstance(packed, list) or fields is None or len(fields) != len(packed):
        raise UnknownNameError(f"{kind.__qualname__} is no such named tuple here.")
    return kind._make(unpack(item) for item in packed)
