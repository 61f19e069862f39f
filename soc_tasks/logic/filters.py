"""What untrusted input may say about a model's own columns: the values inside keys, and posted filters.

A value is taken only if the field takes it, the database can compare it, and it is a plain value (no document, no
bytes). Everything refused here is a ValueError in words, so that nothing posted ends as an error of the database.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router
from django.utils import timezone
from django.utils.duration import duration_iso_string

#: The lookups a posted filter may use; each is answered by comparing one column with values.
POSTED_LOOKUPS: Final = ("exact", "in", "gt", "gte", "lt", "lte", "range", "isnull")
#: The most values that a posted `in` may list: databases limit the parameters of a statement.
MAX_IN_VALUES: Final = 1000

_SCALARS: Final = (str, int, float, Decimal, date, time, timedelta, UUID)


def find_field(model: Any, name: Any) -> Any | None:
    """Return the concrete field of `model` that is called `name`, or None.

    Args:
        model: the model class.
        name: the field's name, its attname ("program_id"), or "pk".
    """
    meta = model._meta
    if name == "pk":
        return None if meta.is_composite_pk else meta.pk
    return next((field for field in meta.concrete_fields if name in (field.name, field.attname)), None)


def get_value_field(field: Any) -> Any:
    """Return the field whose type the column has: behind a foreign key, that of its target."""
    while True:
        if field.remote_field is not None:
            field = field.target_field
        elif isinstance(field, models.GeneratedField):
            field = field.output_field
        else:
            return field


def encode_value(field: Any, value: Any) -> str | int | float | bool:
    """Return a value of `field` as a JSON scalar that stands for exactly this value.

    Args:
        field: a concrete field.
        value: a value as an entity holds it; not None.

    Raises:
        ValueError: it is of a type that cannot be compared as a plain value (bytes, documents, arrays).
    """
    target = get_value_field(field)
    if isinstance(target, models.JSONField | models.BinaryField):
        raise ValueError(f"{_name(field)} holds documents or bytes, which are no plain values to compare by.")
    plain = target.get_prep_value(value)
    match plain:
        case bool():
            return plain
        case int():
            return int(plain)
        case float():
            # JSON has no words for these three.
            return plain if math.isfinite(plain) else str(plain)
        case str():
            return str.__str__(plain)
        case datetime():
            return (plain if timezone.is_naive(plain) else plain.astimezone(UTC)).isoformat()
        case date() | time():
            return plain.isoformat()
        case timedelta():
            return duration_iso_string(plain)
        case Decimal() | UUID():
            return str(plain)
    raise ValueError(f"{_name(field)} holds {type(plain).__name__}, which is no plain value to compare by.")


def coerce_value(field: Any, raw: Any, alias: str) -> Any:
    """Return an untrusted scalar as a value of `field`.

    Args:
        field: a concrete field.
        raw: a JSON scalar, or a value of the field's own type.
        alias: the database that will compare it.

    Raises:
        ValueError: the field or its column cannot take it.
    """
    target = get_value_field(field)
    try:
        if not isinstance(raw, _SCALARS):
            raise TypeError(f"{type(raw).__name__} is no plain value")
        if isinstance(raw, str):
            raw.encode()  # half a surrogate pair is no text, and no message could quote it
        value = _to_python(target, raw)
        encode_value(target, value)
        _check_column(target, value, connections[alias])
    except (ValidationError, TypeError, ValueError, ArithmeticError) as error:
        reason = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        reason = reason[:200].rstrip(".")
        raise ValueError(f"{_name(field)} cannot take the value {_show(raw)}: {reason}.") from error
    return value


def check_posted_filter(model: Any, given: Any, *, using: str | None = None) -> dict[str, Any]:
    """Return an untrusted filter as lookups that are safe to pass to the ORM, values coerced.

    Args:
        model: the model that is filtered.
        given: a mapping of `field` or `field__lookup` to a value, as it was posted.
        using: the database that will be read; None takes the router's.

    Raises:
        ValueError: it names anything but concrete fields of the model and the allowed lookups, or a value does not
            fit its field.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"A posted filter must be an object of lookups, not {type(given).__name__}. {_rules(model)}")
    alias = using or router.db_for_read(model)
    checked: dict[str, Any] = {}
    for key, raw in given.items():
        name, _, lookup = key.partition("__") if isinstance(key, str) else ("", "", "")
        field = find_field(model, name)
        if field is None or (lookup and lookup not in POSTED_LOOKUPS) or key.endswith("__"):
            raise ValueError(f"{_show(key)} is not allowed in a posted filter. {_rules(model)}")
        for part, operand in _split(field, lookup or "exact", raw, alias):
            name = f"{field.attname}__{part}"
            if name in checked:
                raise ValueError(f"{_name(field)}: {part} is in the posted filter twice, by two names.")
            checked[name] = operand
    return checked


def _split(field: Any, lookup: str, raw: Any, alias: str) -> list[tuple[str, Any]]:
    """Return a posted lookup as what the ORM has for it, with its operand checked."""
    if lookup == "exact" and raw is None:
        return [("isnull", True)]
    operand = _check_operand(field, lookup, raw, alias)
    if lookup == "range" and field.is_relation:
        # Foreign keys have every listed lookup but this.
        return [("gte", operand[0]), ("lte", operand[1])]
    return [(lookup, operand)]


def _check_operand(field: Any, lookup: str, raw: Any, alias: str) -> Any:
    if lookup == "isnull":
        if not isinstance(raw, bool):
            raise ValueError(f"{_name(field)}: isnull takes true or false, not {_show(raw)}.")
        return raw
    if lookup not in ("in", "range"):
        return coerce_value(field, raw, alias)
    if not isinstance(raw, list | tuple):
        raise ValueError(f"{_name(field)}: {lookup} takes a list, not {_show(raw)}.")
    if lookup == "range" and len(raw) != 2:
        raise ValueError(f"{_name(field)}: range takes two values, not {len(raw)}.")
    if len(raw) > MAX_IN_VALUES:
        raise ValueError(f"{_name(field)}: {lookup} takes at most {MAX_IN_VALUES} values, not {len(raw)}.")
    return [coerce_value(field, item, alias) for item in raw]


def _to_python(target: Any, raw: Any) -> Any:
    if isinstance(target, models.DateTimeField):
        # A date is a datetime at midnight; Django would warn that it is naive.
        moment = target.to_python(datetime.combine(raw, time.min) if type(raw) is date else raw)
        if settings.USE_TZ and timezone.is_naive(moment):
            return timezone.make_aware(moment)
        if not settings.USE_TZ and timezone.is_aware(moment):
            return timezone.make_naive(moment, UTC)
        return moment
    value = target.to_python(raw)
    if value is None:
        raise ValueError("it stands for no value")
    if isinstance(target, models.IntegerField) and isinstance(raw, float | Decimal) and value != raw:
        raise ValueError("it is no whole number")
    return value


def _check_column(target: Any, value: Any, connection: Any) -> None:
    """Refuse a value that the field takes but the database would choke on."""
    if isinstance(value, str) and "\x00" in value and connection.features.prohibits_null_characters_in_text_exception:
        raise ValueError("text of this database cannot hold NUL")
    if isinstance(value, float) and not math.isfinite(value) and connection.vendor == "mysql":
        raise ValueError("the column holds finite numbers only")
    if isinstance(target, models.IntegerField):
        low, high = connection.ops.integer_field_range(target.get_internal_type())
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"the column holds {low} to {high}")
    target.get_db_prep_value(value, connection)


def _name(field: Any) -> str:
    return f"{field.model._meta.label}.{field.name}" if hasattr(field, "model") else type(field).__name__


def _show(raw: Any) -> str:
    """Return a value for a message, cut short; what is no scalar by its type only (a queryset's repr runs it)."""
    return reprlib.repr(raw) if raw is None or isinstance(raw, _SCALARS) else type(raw).__name__


def _rules(model: Any) -> str:
    names = ", ".join(field.name for field in model._meta.concrete_fields)
    return f"Allowed are the fields {names} or pk, with the lookups {', '.join(POSTED_LOOKUPS)}."
