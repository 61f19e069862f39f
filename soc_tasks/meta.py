"""What travels beside a task's context, in one header of ours: start id, typed keys, slice, inherited options.

The header is believed only on a request that the queue is proven to have made.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import simplejson

from soc_tasks.frozen import frozen
from soc_tasks.values import CONTENT_TYPE, MAX_WHOLE, META_HEADER, IterationResult, RetryOptions, Task

#: gunicorn takes header fields of 8,190 bytes by default; other servers take more.
MAX_META_BYTES: Final = 8000

# Made once: simplejson.dumps() makes an encoder for every call with options.
_encoder: Final = simplejson.JSONEncoder(separators=(",", ":"))
_START_ID = re.compile(r"[0-9a-f]{32}")
#: What the header of a plain task without a typed context looks like, as `to_header` writes it.
_PLAIN = re.compile(r'\{"v":1,"id":"([0-9a-f]{32})"\}')
#: The year 5138, in seconds since the epoch.
_END_OF_TIME: Final = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMessage:
    """Which slice of which iteration a delivery is.

    Args:
        iteration: id of the iteration.
        shard: index of the shard.
        step: how many slices of the shard came before.
        epoch: how often the shard was resumed.
    """

    iteration: str
    shard: int
    step: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What the slices of an iteration take over from the task that started it."""

    queue: str = "default"
    service: str | None = None
    version: str | None = None
    instance: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    dispatch_deadline: float | None = None
    retry: RetryOptions | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is set, as plain JSON values."""
        values: dict[str, Any] = {"queue": self.queue}
        for name in ("service", "version", "instance", "dispatch_deadline"):
            if (value := getattr(self, name)) is not None:
                values[name] = value
        if self.headers:
            values["headers"] = dict(self.headers)
        if self.retry is not None:
            values["retry"] = self.retry.as_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inherited:
        """Read what `as_dict` returned."""
        given = dict(values)
        retry = given.pop("retry", None)
        if not isinstance(given.get("headers", {}), dict):
            raise ValueError("the inherited headers of the task header are malformed")
        return cls(**given, retry=None if retry is None else RetryOptions(**retry))


@frozen
class Meta:
    """The content of the header.

    Args:
        start_id: 32 hex digits, the same across redeliveries, retries and the relay.
        json_keys: context keys whose values are typed JSON.
        list_keys: context keys whose values are lists of str.
        slice: for a slice of an iteration.
        inherited: for the start of an iteration.
        repeat: whether `repeat_in` made this start.
        held: whether a throttle holds it back.
        admitted: whether access was judged when a session or cron started this task.
        selection: whether the state keeps what the iteration is narrowed to.
        tried: attempts that earlier copies of the task had (`repeatTask(countdown)` on Cloud Tasks makes copies).
        since: seconds since the epoch when it was first due; None: when it was made.
        unknown_since, waits: since when it waits for a release that knows what it calls, in seconds since the epoch,
            and how many copies it was queued as for that (on Cloud Tasks).
        busy: how many copies it was queued as because others were in its way (on Cloud Tasks).
        result: for the finalize of an iteration.
    """

    start_id: str
    json_keys: tuple[str, ...] = ()
    list_keys: tuple[str, ...] = ()
    slice: SliceMessage | None = None
    inherited: Inherited | None = None
    repeat: bool = False
    held: bool = False
    admitted: bool = False
    selection: bool = False
    tried: int = 0
    since: float | None = None
    unknown_since: float | None = None
    waits: int = 0
    busy: int = 0
    result: IterationResult | None = None

    @property
    def began(self) -> float:
        """Return when the task was first due, or made, in seconds since the epoch."""
        # A start id begins with the milliseconds of its making.
        return self.since if self.since is not None else int(self.start_id[:12], 16) / 1000

    def to_header(self) -> str:
        """Return the header's value: compact JSON in ASCII."""
        values: dict[str, Any] = {"v": 1, "id": self.start_id}
        if self.json_keys:
            values["json"] = self.json_keys
        if self.list_keys:
            values["lists"] = self.list_keys
        if self.slice is not None:
            values["slice"] = [self.slice.iteration, self.slice.shard, self.slice.step, self.slice.epoch]
        if self.inherited is not None:
            values["inherited"] = self.inherited.as_dict()
        if self.repeat:
            values["repeat"] = True
        if self.held:
            values["held"] = True
        if self.admitted:
            values["admitted"] = True
        if self.selection:
            values["selection"] = True
        if self.tried:
            values["tried"] = self.tried
        if self.since is not None:
            values["since"] = self.since
        if self.unknown_since is not None:
            values["unknown"] = [self.unknown_since, self.waits]
        if self.busy:
            values["busy"] = self.busy
        if self.result is not None:
            values["result"] = dataclasses.asdict(self.result)
        text: str = _encoder.encode(values)
        return text

    @classmethod
    def from_header(cls, header: str) -> Meta:
        """Read a header.

        Raises:
            ValueError: it is not one of ours, or of a version that this release does not know.
        """
        if plain := _PLAIN.fullmatch(header):
            # Most headers: nothing else is to be read, and every call reads one.
            return cls(start_id=plain[1])
        try:
            values = simplejson.loads(header)
            if values["v"] != 1:
                raise ValueError(f"unknown version {values['v']!r} of the task header")
            if not _START_ID.fullmatch(values["id"]):
                raise ValueError("the start id of the task header is malformed")
            message = None
            if "slice" in values:
                iteration, shard, step, epoch = values["slice"]
                numbers = (shard, step, epoch)
                if not _START_ID.fullmatch(iteration) or not all(type(n) is int and 0 <= n < 2**31 for n in numbers):
                    raise ValueError("the slice of the task header is malformed")
                message = SliceMessage(iteration=iteration, shard=shard, step=step, epoch=epoch)
            unknown_since, waits = values.get("unknown", (None, 0))
            return cls(
                start_id=values["id"],
                json_keys=_read_keys(values.get("json", [])),
                list_keys=_read_keys(values.get("lists", [])),
                slice=message,
                inherited=Inherited.from_dict(values["inherited"]) if "inherited" in values else None,
                repeat=values.get("repeat") is True,
                held=values.get("held") is True,
                admitted=values.get("admitted") is True,
                selection=values.get("selection") is True,
                tried=_read_tried(values.get("tried", 0)),
                since=_read_since(values.get("since")),
                unknown_since=_read_since(unknown_since),
                waits=_read_tried(waits),
                busy=_read_tried(values.get("busy", 0)),
                result=IterationResult(**values["result"]) if "result" in values else None,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"the task header is malformed: {error!r}") from error


def _read_keys(keys: Any) -> tuple[str, ...]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the keys of the task header are malformed")
    return tuple(keys)


def _read_tried(tried: Any) -> int:
    if type(tried) is not int or not 0 <= tried <= MAX_WHOLE:
        raise ValueError("the attempts of the task header are malformed")
    return tried


def _read_since(since: Any) -> float | None:
    if since is not None and (type(since) not in (int, float) or not 0 <= since < _END_OF_TIME):
        raise ValueError("the time of the task header is malformed")
    return None if since is None else float(since)


def write_plain(start_id: str) -> str:
    """Return what `Meta(start_id=start_id).to_header()` does, at once: most tasks have nothing else to say."""
    return f'{{"v":1,"id":"{start_id}"}}'


def make_plain_headers(start_id: str) -> dict[str, str]:
    """Return the headers of a task that has none of its own, and whose meta header is plain."""
    return {"Content-Type": CONTENT_TYPE, META_HEADER: write_plain(start_id)}


def read_meta(task: Task) -> Meta | None:
    """Return the meta header of a task, or None where it has none that can be read."""
    header = task.headers.get(META_HEADER)
    if header is None:
        return None
    try:
        return Meta.from_header(header)
    except ValueError:
        return None
