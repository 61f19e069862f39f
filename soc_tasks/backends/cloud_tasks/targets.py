"""`http_target` of a queue as the service has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from soc_tasks.errors import ConfigurationError
from soc_tasks.values import QueueOptions

#: What a queue of the service has where nothing is said.
_DEFAULTS = {"SCHEME_UNSPECIFIED": "HTTPS", "URI_OVERRIDE_ENFORCE_MODE_UNSPECIFIED": "ALWAYS"}
_UNSAID = {"uri_override.uri_override_enforce_mode": "ALWAYS"}
_URI = "uri_override"


def write_target(message: Any, options: QueueOptions) -> None:
    """Write what the settings say of a queue's HTTP target into its message.

    Args:
        message: a Queue of the API.
        options: the queue in the settings.

    Raises:
        ConfigurationError: the client library does not know HTTP targets of queues.
    """
    given: Mapping[str, Any] = options.http_target or {}
    if not given:
        return
    if not _has_target(message):
        raise ConfigurationError(
            f"CLOUD_TASKS_QUEUES: http_target of queue {options.name!r} needs a google-cloud-tasks that knows it: "
            "pip install 'google-cloud-tasks>=2.26'"
        )
    target = message.http_target
    for name, value in given.get(_URI, {}).items():
        uri = target.uri_override
        if name == "path_override":
            uri.path_override.SetInParent()
            uri.path_override.path = value
        elif name == "query_override":
            uri.query_override.SetInParent()
            uri.query_override.query_params = value
        else:
            setattr(uri, name, _number(uri, name, value))
    if method := given.get("http_method"):
        target.http_method = _number(target, "http_method", method)
    for name, value in given.get("header_overrides", {}).items():
        header = target.header_overrides.add().header
        header.key, header.value = name, value
    for kind in ("oidc_token", "oauth_token"):
        for name, value in given.get(kind, {}).items():
            setattr(getattr(target, kind), name, value)


def _has_target(message: Any) -> bool:
    return "http_target" in message.DESCRIPTOR.fields_by_name


def _number(message: Any, name: str, value: Any) -> Any:
    """Return the number of an enumeration's value; anything else as it is."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    return value if enum is None else enum.values_by_name[value].number


def compare_targets(actual: Any, wanted: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what differs of all that is set in `wanted`, by its path in a Queue.

    Args:
        actual: the HttpTarget of the service; empty where the queue is not there.
        wanted: that of the settings.
    """
    # Names of headers are the same whatever their case.
    found = {path.lower(): value for path, value in _flatten(actual)}
    for path, value in _flatten(wanted):
        there = found.get(path.lower())
        if there != value and not (there is None and value == _UNSAID.get(path)):
            yield f"http_target.{path}", (there, value)


def _flatten(target: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is set in an HttpTarget, as the settings would have it."""
    for field, value in target.ListFields():
        if field.name == "header_overrides":
            for override in value:
                yield f"header_overrides.{override.header.key}", override.header.value
        elif field.message_type is None:
            yield field.name, _show(field, value)
        else:
            for inner, inside in value.ListFields():
                yield f"{field.name}.{inner.name}", _show(inner, inside)


def _show(field: Any, value: Any) -> Any:
    if field.name == "path_override":
        return value.path
    if field.name == "query_override":
        return value.query_params
    if field.enum_type is None:
        return value
    name = field.enum_type.values_by_number[value].name
    return _DEFAULTS.get(name, name)


def find_mask(path: str) -> str:
    """Return the field to be named in an update: each part of an HTTP target is written as a whole."""
    return ".".join(path.split(".")[:2])


def keep_rest(message: Any, actual: Any) -> None:
    """Add to a message what the service has in the parts of it that are written as a whole.

    Args:
        message: the Queue that will be written.
        actual: the Queue of the service.
    """
    if not _has_target(message):
        return
    target, there = message.http_target, actual.http_target
    if target.HasField(_URI):
        wanted = type(target.uri_override)()
        wanted.CopyFrom(target.uri_override)
        target.uri_override.CopyFrom(there.uri_override)
        for field, value in wanted.ListFields():
            if field.message_type is None:
                setattr(target.uri_override, field.name, value)
            else:
                getattr(target.uri_override, field.name).CopyFrom(value)
    if target.header_overrides:
        named = {override.header.key.lower() for override in target.header_overrides}
        target.header_overrides.extend(
            override for override in there.header_overrides if override.header.key.lower() not in named
        )
