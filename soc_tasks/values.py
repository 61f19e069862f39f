"""The values that travel between the rooms: never changed, without behaviour beyond their own fields.

`Task` is what a backend takes, `TaskHandle` what the caller gets back, `TaskRequest` one line of a bulk call,
`Delivery` what a queue knows of the call it makes, `TaskInfo` what a view sees of that (`request.task`).
`IterationResult` is what `finalize` learns of its iteration, `FailedItem` an entity that one gave up.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from soc_tasks.frozen import frozen

#: The header that carries what belongs to a task beside its context: start id, typed keys, slice, inherited options.
META_HEADER: Final = "X-SocTasks-Meta"
#: Of the body of a task: its context is a form.
CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
#: What an answer tells a queue of ours beyond its status: "dead", "busy" or "unknown".
OUTCOME_HEADER: Final = "X-SocTasks-Outcome"
#: Seconds after which `repeatTask(countdown)` wants the next attempt.
COUNTDOWN_HEADER: Final = "X-SocTasks-Countdown"
#: What the embedded engine tells of a call that it makes by HTTP, and what proves that it made it (signatures.py).
DELIVERY_HEADER: Final = "X-SocTasks-Delivery"
SIGNATURE_HEADER: Final = "X-SocTasks-Signature"
#: The key of the WSGI environ under which in-process dispatch puts its `Delivery`. A network client sets strings only.
DELIVERY_KEY: Final = "soc_tasks.delivery"


#: Seconds of the longest wait, 30 days; and the largest whole number, which every database can store.
MAX_SECONDS: Final = 30 * 86400
MAX_WHOLE: Final = 2**31 - 1


def _check_number(owner: str, name: str, value: Any, *, low: float, whole: bool = False) -> None:
    """Refuse `value` unless it is a number from `low` to the largest there is of its kind (None passes: not set)."""
    if value is None:
        return
    kinds = (int,) if whole else (int, float)
    high = MAX_WHOLE if whole else MAX_SECONDS
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{owner}: {name} must be {kind} from {low:g} to {high:,}, not {value!r}.")


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and when a task is tried again; None takes the queue's value.

    Args:
        max_attempts: attempts in all, the first included; -1 without limit.
        max_retry_duration: seconds from the first attempt; 0 without limit. Where both limits are set, a task
            stops only when both are passed (Cloud Tasks v2, RetryConfig).
        min_backoff: seconds before the first retry.
        max_backoff: the longest wait, seconds.
        max_doublings: how often the wait doubles before it grows linearly.
    """

    max_attempts: int | None = None
    max_retry_duration: float | None = None
    min_backoff: float | None = None
    max_backoff: float | None = None
    max_doublings: int | None = None

    def __post_init__(self) -> None:
        _check_number("RetryOptions", "max_attempts", self.max_attempts, low=-1, whole=True)
        if self.max_attempts == 0:
            raise ValueError("RetryOptions: max_attempts must be -1 (without limit) or at least 1, not 0.")
        _check_number("RetryOptions", "max_retry_duration", self.max_retry_duration, low=0)
        _check_number("RetryOptions", "min_backoff", self.min_backoff, low=0)
        _check_number("RetryOptions", "max_backoff", self.max_backoff, low=0)
        _check_number("RetryOptions", "max_doublings", self.max_doublings, low=0, whole=True)
        if self.min_backoff is not None and self.max_backoff is not None and self.min_backoff > self.max_backoff:
            raise ValueError(
                f"RetryOptions: min_backoff ({self.min_backoff}) must not be above max_backoff ({self.max_backoff})."
            )

    def over(self, base: RetryOptions) -> RetryOptions:
        """Return these options, with those of `base` where none is set here; its backoffs give way to these."""
        own, joined = self.as_dict(), {**base.as_dict(), **self.as_dict()}
        shortest, longest = joined.get("min_backoff"), joined.get("max_backoff")
        if shortest is not None and longest is not None and shortest > longest:
            joined["min_backoff"] = joined["max_backoff"] = own.get("min_backoff", longest)
        return RetryOptions(**joined)

    def as_dict(self) -> dict[str, Any]:
        """Return the options that are set, as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


#: Cloud Tasks' defaults of a queue (cloud.google.com/tasks/docs/reference/rest/v2, RetryConfig).
DEFAULT_RETRY: Final = RetryOptions(
    max_attempts=100, max_retry_duration=0, min_backoff=0.1, max_backoff=3600.0, max_doublings=16
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """What CLOUD_TASKS_QUEUES says of one queue.

    Args:
        name: `[A-Za-z0-9-]{1,100}`.
        rate_per_second: dispatches a second; None takes the backend's default (embedded: without limit).
        rate_max_concurrent: dispatches at one time over all workers; None as above.
        retry: its retry options, whole (defaults filled in).
        retry_given: those of them that are set.
        log_sampling_ratio: share of operations that Cloud Tasks logs, 0 to 1.
        routing: where App Engine tasks of the queue go, over their own routing: service, version, instance.
        http_target: what HTTP tasks of the queue are sent as, over what they say themselves (http_targets.py).
    """

    name: str
    rate_per_second: float | None = None
    rate_max_concurrent: int | None = None
    retry: RetryOptions = DEFAULT_RETRY
    retry_given: RetryOptions = RetryOptions()
    log_sampling_ratio: float | None = None
    routing: Mapping[str, str] | None = None
    http_target: Mapping[str, Any] | None = None


@frozen
class Task:
    """One POST to be made: what a backend takes.

    Args:
        queue: name of the queue.
        name: its name in that queue, fixed before anything is sent.
        path: path and query string of the URL, script prefix included.
        script_name: the part of `path` that is the script prefix ("" or "/prefix").
        body: what is POSTed.
        headers: what is sent along, ours included.
        eta: when it is due (aware); None: now.
        created: when it was made (aware).
        dispatch_deadline: seconds an attempt may take; None takes the backend's default (600).
        retry: options that override the queue's, or None.
        service, version, instance: where it runs, on a backend that routes.
        start_id: 32 hex digits, the same across redeliveries, retries and the relay.
        named: whether the caller chose the name (then it stays taken for a while after the task's end).
        target: what the dispatcher of the engine's server must know beside that, as JSON values.
    """

    queue: str
    name: str
    path: str
    script_name: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    eta: datetime | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    dispatch_deadline: float | None = None
    retry: RetryOptions | None = None
    service: str | None = None
    version: str | None = None
    instance: str | None = None
    start_id: str = ""
    named: bool = False
    target: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHandle:
    """A task that was accepted.

    Args:
        name: its name in the queue.
        queue: name of the queue.
        url: path and query string that it is POSTed to.
        eta: when it is due (aware), or None: at once.
        iteration: id of the iteration that it starts, or None.
    """

    name: str
    queue: str
    url: str
    eta: datetime | None = None
    iteration: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One task of a bulk call: the arguments of `startTask` but `using`; `queue` None takes that of the call."""

    url: Any
    context: Mapping[str, Any] | None = None
    queue: str | None = None
    url_args: Sequence[Any] | None = None
    url_kwargs: Mapping[str, Any] | None = None
    countdown: float | None = None
    eta: datetime | None = None
    name: str | None = None
    headers: Mapping[str, str] | None = None
    service: str | None = None
    version: str | None = None
    instance: str | None = None
    dispatch_deadline: float | None = None
    retry_options: RetryOptions | None = None


def _never() -> bool:
    return False


@frozen
class Delivery:
    """What a queue of ours knows of the call that it makes; its presence in the WSGI environ proves the call.

    Args:
        queue: name of the queue.
        name: name of the task.
        retry_count: attempts made before this one.
        execution_count: answers had before this one.
        eta: when the task was due (aware).
        previous_status: HTTP status of the last answer, or None.
        is_last_attempt: whether a failure now is the last.
        deadline: `time.monotonic()` by which the view must have answered.
        stopping: whether the worker wants to end: work that can be cut short should be.
        failures: the exceptions that the view raised, for whoever made the call.
        outcomes: gets the outcome that the view decides on, where whoever made the call writes the log line.
        functions: gets the name of the deferred function that is called, likewise.
        note: what whoever made the last call noted (`Answer.note`).
        is_overdue: whether its attempts were used up before this one, of which no answer came: it must not run.
        takes_countdown: whether the queue goes by the countdown of an answer (`repeatTask(countdown)`).
        rehearsal: for a dry run (`logic.rehearsals.Rehearsal`): no queue made the call, and nothing of it is kept.
    """

    queue: str
    name: str
    retry_count: int = 0
    execution_count: int = 0
    eta: datetime | None = None
    previous_status: int | None = None
    is_last_attempt: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + 600.0)
    stopping: Callable[[], bool] = _never
    failures: list[BaseException] = field(default_factory=list)
    outcomes: list[str] | None = None
    functions: list[str] = field(default_factory=list)
    note: str = ""
    is_overdue: bool = False
    takes_countdown: bool = True
    rehearsal: Any = None


@frozen
class Answer:
    """What came back from a call.

    Args:
        status: HTTP status; 504 where there was no answer in time, 502 where there was none at all, 500 where the call
            broke.
        outcome: value of the outcome header: "", "dead", or "busy" or "unknown" (not counted as an attempt).
        countdown: seconds until the next attempt, where the view asked for it.
        retry_after: seconds for which a service that answers 429 or 503 wants to be left alone, where it says so.
        presses: whether 429 and 503 ask for the whole queue to be slowed down.
        note: what whoever made the call wants to be told at the next one; None: what it was told before.
    """

    status: int
    outcome: str = ""
    countdown: float | None = None
    retry_after: float | None = None
    presses: bool = True
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """What a view sees of its task, as `request.task`.

    Args:
        name, queue: the task's name and its queue's.
        retry_count: attempts made before this one.
        execution_count: answers had before this one.
        eta: when it was due (aware), or None.
        previous_status: HTTP status of the last answer, or None.
        is_last_attempt: whether a failure now ends in a dead letter.
        context: what `startTask` was given, types and all.
        start_id: the same across all attempts; a key to deduplicate by.
        iteration, shard, step: for a slice of an iteration.
    """

    name: str
    queue: str
    retry_count: int = 0
    execution_count: int = 0
    eta: datetime | None = None
    previous_status: int | None = None
    is_last_attempt: bool = False
    context: dict[str, Any] = field(default_factory=dict)
    start_id: str = ""
    iteration: str | None = None
    shard: int | None = None
    step: int | None = None
    deadline: float = field(default_factory=lambda: time.monotonic() + 600.0)

    def time_left(self) -> timedelta:
        """Return the time until the queue gives this attempt up; zero when it is over."""
        return timedelta(seconds=max(0.0, self.deadline - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Hold:
    """What a throttle answers to hold an iteration back.

    Args:
        seconds: after which it is asked again, from 0.1 to 30 days.
        reason: shown in the progress.
    """

    seconds: float
    reason: str = ""

    def __post_init__(self) -> None:
        _check_number("Hold", "seconds", self.seconds, low=0.1)
        if self.seconds is None:
            raise ValueError("Hold: seconds must be a number, not None.")
        if not isinstance(self.reason, str):
            raise TypeError(f"Hold: reason must be a text, not {self.reason!r:.100}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationResult:
    """What `finalize` gets to know of its iteration, where it takes `result`.

    Args:
        iteration: id of the iteration.
        done: entities done.
        failed: entities given up; `Iteration.get(iteration).failed_items()` has them.
        total: entities at the start, or None where nobody counted.
        seconds: time from the start to the end of the last batch.
    """

    iteration: str
    done: int
    failed: int
    total: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedItem:
    """An entity that an iteration gave up, with its last error.

    Args:
        iteration: id of the iteration.
        shard: index of the shard that came to it.
        key: where it is found again.
        entity: what it is, for people: `app.Model pk`.
        error_type: class of the exception.
        error: its message.
        traceback: its traceback, for the operator.
        attempts: how often it was given up: once, and once more for each retry that failed.
        created: when it was given up first.
        id: its number in the ledger; 0 until it is kept.
    """

    iteration: str
    shard: int
    key: str
    entity: str
    error_type: str
    error: str = ""
    traceback: str = ""
    attempts: int = 1
    created: datetime | None = None
    id: int = 0
