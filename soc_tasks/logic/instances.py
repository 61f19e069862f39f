"""Model instances as they are: the values of their fields, not the row that they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from inspect import getattr_static
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.files import File
from django.db import connections
from django.db.models import Field, Model
from django.db.models.fields.mixins import FieldCacheMixin
from django.utils.functional import cached_property as django_cached_property

from soc_tasks.errors import PayloadError
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.logic.strict_json import check_text

Pack = Callable[[Any, str], Any]
Unpack = Callable[[Any], Any]

#: The tag of a value that travels as the text that its field makes of it. (A dict of the user's is escaped.)
_TAG: Final = "__soc__"
_AS_TEXT: Final = "field"


def pack_instance(instance: Model, path: str, pack: Pack, related: Mapping[str, Model]) -> dict[str, Any]:
    """Return an instance as plain values: model, alias, whether it was saved, its fields, and what else was set on it.

    Args:
        instance: the instance; it is not touched.
        path: how errors name it.
        pack: packs a value.
        related: instances of its caches that travel with it, by field.

    Raises:
        PayloadError: a value cannot travel.
    """
    if apps.all_models[instance._meta.app_label].get(instance._meta.model_name or "") is not type(instance):
        raise PayloadError(f"{path} is of a model that no app has, such as one of a migration; pass its primary key.")
    packed: dict[str, Any] = {"model": instance._meta.label, "fields": _pack_fields(instance, path, pack)}
    if instance._state.adding:
        packed["new"] = True
    if instance._state.db is not None:
        packed["using"] = instance._state.db
    if extra := _find_extra(instance):
        packed["extra"] = {name: pack(value, f"{path}.{name}") for name, value in extra.items()}
    if related:
        packed["related"] = {name: pack(value, f"{path}.{name}") for name, value in related.items()}
    return packed


def _pack_fields(instance: Model, path: str, pack: Pack) -> dict[str, Any]:
    fields = {}
    for field in instance._meta.concrete_fields:
        # Deferred fields are not in it; to look at them would read them from the database.
        if field.attname in instance.__dict__:
            fields[field.attname] = _pack_field(field, instance, f"{path}.{field.attname}", pack)
    return fields


def _pack_field(field: Field[Any, Any], instance: Model, path: str, pack: Pack) -> Any:
    value = instance.__dict__[field.attname]
    if isinstance(value, File):
        if not getattr(value, "_committed", False):
            raise PayloadError(f"{path} is a file that is not saved yet; save it first.")
        value = value.name
    elif isinstance(value, memoryview):
        value = bytes(value)
    try:
        return pack(value, path)
    except PayloadError:
        text = _write(field, instance, value)
        if text is None:
            raise
        return {_TAG: _AS_TEXT, "v": text}


def _write(field: Field[Any, Any], instance: Model, value: Any) -> str | None:
    """Return the text that a field makes of a value of a type of its own (a range, a geometry), as for fixtures."""
    if hasattr(value, "resolve_expression") or isinstance(value, (str, int, float, Decimal)):
        # F("x") + 1 is no value yet; the others were refused for what they hold, NUL or NaN.
        return None
    try:
        text = field.value_to_string(instance)
        return check_text(text, "") if isinstance(text, str) and field.to_python(text) == value else None
    except (TypeError, ValueError, ArithmeticError, AttributeError, ValidationError):
        return None


def _find_extra(instance: Model) -> dict[str, Any]:
    """Return what was set on an instance beside its fields: annotations, say; not what is computed again."""
    own = {field.attname for field in instance._meta.concrete_fields}
    return {
        name: value
        for name, value in instance.__dict__.items()
        if name not in own and not name.startswith("_") and not is_cached_property(type(instance), name)
    }


def is_cached_property(kind: type, name: str) -> bool:
    """Tell whether an attribute of an instance is computed again where it is not there."""
    return isinstance(getattr_static(kind, name, None), (cached_property, django_cached_property))


def unpack_instance(packed: Any, unpack: Unpack) -> Model:
    """Return an instance with the values that `pack_instance` saw.

    Raises:
        UnknownNameError: there is no such model, field or alias here.
        ValueError: it is no such thing.
    """
    if not isinstance(packed, dict) or not isinstance(packed.get("model"), str):
        raise ValueError("what is tagged 'model' is none")
    label, fields = packed["model"], packed.get("fields")
    if not isinstance(fields, dict) or packed.keys() - {"model", "fields", "new", "using", "extra", "related"}:
        raise ValueError("what is tagged 'model' is none")
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise UnknownNameError(f"There is no model {label:.200} here.") from error
    alias = packed.get("using")
    if alias is not None and alias not in connections:
        raise UnknownNameError(f"There is no database {alias!r:.100} here, which a {label} is from.")
    known = {field.attname: field for field in model._meta.concrete_fields}
    if missing := fields.keys() - known.keys():
        raise UnknownNameError(f"The model {label} has no field {', '.join(sorted(missing)):.200} here.")
    # In the order of the model's fields: from_db goes by that.
    values = {name: _unpack_field(field, fields[name], unpack) for name, field in known.items() if name in fields}
    instance: Model = model.from_db(alias, list(values), list(values.values()))
    instance._state.adding, instance._state.db = packed.get("new") is True, alias
    for name, value in _read_part(packed, "extra").items():
        instance.__dict__[name] = unpack(value)
    for name, value in _read_part(packed, "related").items():
        _relate(instance, name, unpack(value))
    return instance


def _relate(instance: Model, name: str, related: Any) -> None:
    """Put a related instance into the cache of another, and where each has one only, that into its own."""
    if not isinstance(related, Model):
        raise ValueError("what is tagged 'model' is none")
    instance._state.fields_cache[name] = related
    for field in instance._meta.get_fields():
        if field.one_to_one and isinstance(field, FieldCacheMixin) and field.cache_name == name and field.remote_field:
            related._state.fields_cache[field.remote_field.cache_name] = instance


def _read_part(packed: dict[str, Any], name: str) -> dict[str, Any]:
    part = packed.get(name, {})
    if not isinstance(part, dict):
        raise ValueError("what is tagged 'model' is none")
    return part


def _unpack_field(field: Field[Any, Any], packed: Any, unpack: Unpack) -> Any:
    if isinstance(packed, dict) and packed.get(_TAG) == _AS_TEXT and isinstance(packed.get("v"), str):
        try:
            return field.to_python(packed["v"])
        except ValidationError as error:
            raise ValueError(f"the value of {field.attname} is none of its field") from error
    return unpack(packed)
