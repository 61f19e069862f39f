"""What a queue's configuration may be, what stands in for what is not given, and what of it the engine knows.

Ranges and texts are the service's (recorded), but where it says "ours".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from soc_tasks.engine.caps import burst_size
from soc_tasks.engine.server import errors
from soc_tasks.engine.server.messages import api, seconds_of
from soc_tasks.values import MAX_SECONDS, MAX_WHOLE, QueueOptions, RetryOptions

#: Dispatches a second, and at one time: what a queue has unless told otherwise, and what it may have at most.
RATE, MOST_RATE = 500.0, 500.0
CONCURRENT, MOST_CONCURRENT = 1000, 5000
ATTEMPTS: Final = 100
DOUBLINGS: Final = 16
#: Milliseconds.
MIN_BACKOFF, MAX_BACKOFF = 100, 3_600_000

#: What only the service sets.
_OUTPUT_ONLY: Final = ("name", "state", "purge_time", "rate_limits.max_burst_size")


def make(given: Any) -> Any:
    """Return the configuration of a new queue.

    Args:
        given: the Queue that a client wants.

    Raises:
        ApiError: it cannot be.
    """
    queue = api().Queue()
    queue.CopyFrom(given)
    return _complete(queue, fresh=True)


def change(queue: Any, given: Any, paths: Sequence[str]) -> Any:
    """Return a queue's configuration after an update.

    Args:
        queue: as it is.
        given: the Queue of the request.
        paths: the fields to change; none: all of them.

    Raises:
        ApiError: it cannot be.
    """
    from google.protobuf.field_mask_pb2 import FieldMask

    if not paths or "*" in paths:
        return make(given)
    mask = FieldMask(paths=paths)
    if not mask.IsValidForDescriptor(api().Queue.DESCRIPTOR):
        # Ours.
        raise errors.invalid(f"The update mask holds fields that a queue does not have: {', '.join(paths)}.")
    changed = api().Queue()
    changed.CopyFrom(queue)
    wanted = FieldMask(paths=[path for path in paths if not path.startswith(_OUTPUT_ONLY)])
    # A message that is named and not given is removed: so is routing (reference of UpdateQueue). A field that is named
    # and not given is set to nothing, also where its whole message is not given.
    source = api().Queue()
    source.CopyFrom(given)
    for path in wanted.paths:
        giving, taking = source, changed
        for part in path.split(".")[:-1]:
            if not taking.HasField(part):
                break
            giving, taking = getattr(giving, part), getattr(taking, part)
            giving.SetInParent()
    wanted.MergeMessage(source, changed, replace_message_field=True, replace_repeated_field=True)
    return _complete(changed, fresh="retry_config" in paths)


def _complete(queue: Any, *, fresh: bool) -> Any:
    """Check a configuration and fill in what is not given; `fresh`: a number of doublings of 0 is none given."""
    _check_rates(queue.rate_limits)
    check_retry(queue.retry_config)
    queue.rate_limits.max_dispatches_per_second = queue.rate_limits.max_dispatches_per_second or RATE
    queue.rate_limits.max_concurrent_dispatches = queue.rate_limits.max_concurrent_dispatches or CONCURRENT
    queue.rate_limits.max_burst_size = burst_size(queue.rate_limits.max_dispatches_per_second)
    retry = queue.retry_config
    retry.max_attempts = retry.max_attempts or ATTEMPTS
    if fresh:
        retry.max_doublings = retry.max_doublings or DOUBLINGS
    if not retry.HasField("min_backoff"):
        retry.min_backoff.FromMilliseconds(MIN_BACKOFF)
    if not retry.HasField("max_backoff"):
        retry.max_backoff.FromMilliseconds(MAX_BACKOFF)
    # Once more, with what was filled in.
    check_retry(retry)
    if not 0 <= queue.stackdriver_logging_config.sampling_ratio <= 1:
        # Ours.
        raise errors.invalid("StackdriverLoggingConfig.samplingRatio must be between 0 and 1.")
    if queue.HasField("http_target"):
        _check_target(queue.http_target)
    queue.ClearField("state")
    queue.ClearField("purge_time")
    return queue


def _check_rates(limits: Any) -> None:
    rate, together = limits.max_dispatches_per_second, limits.max_concurrent_dispatches
    if rate < 0:
        raise errors.invalid("RateLimits.maxDispatchesPerSecond cannot be negative.")
    if not rate <= MOST_RATE:
        raise errors.invalid("RateLimits.maxDispatchesPerSecond must be less than or equal to 500.")
    if together < 0:
        raise errors.invalid("RateLimits.maxConcurrentDispatches cannot be negative.")
    if together > MOST_CONCURRENT:
        raise errors.invalid("RateLimits.maxConcurrentDispatches must be less than or equal to 5000.")


def check_retry(retry: Any) -> None:
    """Refuse a RetryConfig that cannot be.

    Raises:
        ApiError: it cannot be.
    """
    if retry.max_attempts < -1:
        raise errors.invalid("RetryConfig.maxAttempts must be greater or equal to -1.")
    if retry.max_doublings < 0:
        raise errors.invalid("RetryConfig.maxDoublings cannot be negative.")
    for field, name in (
        ("max_retry_duration", "maxRetryDuration"),
        ("min_backoff", "minBackoff"),
        ("max_backoff", "maxBackoff"),
    ):
        # The first and the last of these are ours, after the second.
        if seconds_of(getattr(retry, field)) < 0:
            raise errors.invalid(f"RetryConfig.{name} cannot be negative.")
    both = retry.HasField("min_backoff") and retry.HasField("max_backoff")
    if both and seconds_of(retry.min_backoff) > seconds_of(retry.max_backoff):
        raise errors.invalid("RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.")


def _check_target(target: Any) -> None:
    """Refuse an HttpTarget that cannot be (the texts are ours, the rules the client library's)."""
    uri = target.uri_override
    if uri.HasField("host") and not uri.host:
        raise errors.invalid("UriOverride.host cannot be empty.")
    if uri.HasField("port") and not 0 <= uri.port <= 65535:
        raise errors.invalid("UriOverride.port must be between 0 and 65535.")
    if target.HasField("oauth_token"):
        raise errors.absent("This server makes no OAuth tokens; give HttpTarget.oidc_token.")
    if target.HasField("oidc_token") and not target.oidc_token.service_account_email:
        raise errors.invalid("HttpTarget.oidcToken.serviceAccountEmail is required.")
    for override in target.header_overrides:
        check_header(override.header.key, override.header.value)


def check_header(name: str, value: str) -> None:
    """Refuse a header that HTTP cannot carry (ours).

    Raises:
        ApiError: it cannot be sent.
    """
    if not name or not name.isascii() or not all(character.isalnum() or character in _MARKS for character in name):
        raise errors.invalid(f"{name!r} is no name of an HTTP header.")
    if any(character in value for character in "\r\n\0"):
        raise errors.invalid(f"The value of the header {name} holds a line break or NUL.")


#: Characters of a header's name beside letters and digits (RFC 9110, 5.6.2).
_MARKS: Final = "!#$%&'*+-.^_`|~"


def read_options(key: str, queue: Any) -> QueueOptions:
    """Return what the engine must know of a queue.

    Args:
        key: its short form.
        queue: its configuration, complete.
    """
    return QueueOptions(
        name=key,
        rate_per_second=queue.rate_limits.max_dispatches_per_second,
        rate_max_concurrent=queue.rate_limits.max_concurrent_dispatches,
        retry=read_retry(queue.retry_config, whole=True),
    )


def read_retry(retry: Any, *, whole: bool) -> RetryOptions:
    """Return a RetryConfig as the engine knows it; `whole`: with all that is 0 and may be 0."""
    given: dict[str, Any] = {}
    if retry.max_attempts:
        given["max_attempts"] = min(retry.max_attempts, MAX_WHOLE)
    if retry.max_doublings or whole:
        given["max_doublings"] = retry.max_doublings
    for name in ("max_retry_duration", "min_backoff", "max_backoff"):
        if retry.HasField(name):
            given[name] = min(seconds_of(getattr(retry, name)), MAX_SECONDS)
    return RetryOptions(**given)
