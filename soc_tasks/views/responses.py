"""What a task answers: Melange's two words, and the table of outcomes.

A queue removes a task if and only if it is answered with 2xx; everything else is tried again (Cloud Tasks, B2: there is
no status for "failed for good"). 503 and 429 would slow the whole queue down, so neither is ever sent.

| what happened                                         | outcome   | status |
|-------------------------------------------------------|-----------|--------|
| the view returned None or a 2xx response              | done      | 200    |
| FatalTaskError, Http404, PermissionDenied, `fatal_on` | dead      | 200    |
| the last attempt failed                               | dead      | 200    |
| input that can never work                             | dead      | 200    |
| SingularTaskFailure                                   | retry     | 408    |
| any other exception, or any other response            | retry     | 500    |
| the dead letter could not be written                  | retry     | 500    |
| a batch failed after others; a copy was queued        | retry     | 200    |
| others hold the shard or the receipt (or a deadlock)  | busy      | 500    |
| a deferred function is not known here               | unknown   | 500    |
| the same, and a copy was queued (on Cloud Tasks)      | busy      | 200    |
| an atomic task that ran before                        | duplicate | 200    |
| a slice that was run before, or of an ended iteration | stale     | 200    |
| started by a session or by cron                       | started   | 202    |

Bodies are empty: no traceback and nothing of the view's leaves the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse

from soc_tasks.errors import FatalTaskError, SingularTaskFailure
from soc_tasks.values import COUNTDOWN_HEADER, OUTCOME_HEADER


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of the table.

    Args:
        name: as in the table.
        status: HTTP status.
        header: value of the outcome header, where a queue of ours should know.
    """

    name: str
    status: int
    header: str = ""

    def to_response(self, countdown: str | None = None) -> HttpResponse:
        """Return the empty response that says so."""
        response = HttpResponse(status=self.status)
        # Django would log each status of 500 as an error of the site, and mail it to ADMINS: an attempt that is to be
        # tried again is in our own log, with its exception.
        response._has_been_logged = True  # type: ignore[attr-defined]
        if self.header:
            response[OUTCOME_HEADER] = self.header
        if countdown is not None:
            response[COUNTDOWN_HEADER] = countdown
        return response


DONE: Final = Outcome("done", 200)
DEAD: Final = Outcome("dead", 200, "dead")
RETRY: Final = Outcome("retry", 500)
RETRY_QUIETLY: Final = Outcome("retry", 408)
HANDED_OVER: Final = Outcome("retry", 200)
BUSY: Final = Outcome("busy", 500, "busy")
PUT_OFF: Final = Outcome("busy", 200)
UNKNOWN: Final = Outcome("unknown", 500, "unknown")
DUPLICATE: Final = Outcome("duplicate", 200)
STALE: Final = Outcome("stale", 200)
STARTED: Final = Outcome("started", 202)

_FATAL: Final = (FatalTaskError, Http404, PermissionDenied)


def judge_error(error: Exception, fatal_on: tuple[type[Exception], ...] = ()) -> Outcome:
    """Return the outcome of an attempt that raised `error`, the last attempt aside."""
    if isinstance(error, (*_FATAL, *fatal_on)):
        return DEAD
    if isinstance(error, SingularTaskFailure):
        return RETRY_QUIETLY
    return RETRY


def terminateTask() -> HttpResponse:
    """Return the answer that takes the task off its queue (200)."""
    return HttpResponse(status=200)


def repeatTask(countdown: float | None = None) -> HttpResponse:
    """Return the answer that has the task tried again (500).

    Args:
        countdown: seconds until then; None leaves it to the queue's backoff.

    Raises:
        ValueError: `countdown` is negative or no number.
    """
    if countdown is None:
        return RETRY.to_response()
    if isinstance(countdown, bool) or not isinstance(countdown, (int, float)) or not 0 <= countdown <= 30 * 86400:
        raise ValueError(f"countdown must be seconds from 0 to 30 days, not {countdown!r}.")
    return RETRY.to_response(countdown=repr(float(countdown)))
