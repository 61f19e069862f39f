"""Who may call a task. Every check judges the request object, never process state, and fails closed.

Checks are callables of the request and combine: `from_queue | superuser`, `staff & has_permission("app.change_x")`.
A check that rests on a session enforces CSRF itself, since task views are exempt from the middleware.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt

from soc_tasks.logic.current import current_cron, current_task
from soc_tasks.values import DELIVERY_KEY, Delivery, TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.cloud import judge_cloud
from soc_tasks.views.signed import BROKEN_OFF, judge_signed

logger = logging.getLogger("soc_tasks")


class Check:
    """A rule that lets a request in or not.

    Args:
        test: callable of the request.
        name: how the rule reads.
        takes_queue: whether the queue may come in, so that code may start such a task.
        judges_user: whether it may depend on who asks, so that whoever starts such a task by hand must pass it.
    """

    def __init__(
        self,
        test: Callable[[HttpRequest], bool],
        name: str,
        *,
        takes_queue: bool = True,
        judges_user: bool = True,
    ) -> None:
        self._test = test
        self.name = name
        self.takes_queue = takes_queue
        self.judges_user = judges_user

    def __call__(self, request: HttpRequest) -> bool:
        """Tell whether the request is let in; anything but True is a no, an exception as well."""
        try:
            return self._test(request) is True
        except Exception:  # whatever a check trips over, nobody gets in by it
            logger.exception("the access check %s broke, and lets nobody in", self.name)
            return False

    def __or__(self, other: Callable[[HttpRequest], bool]) -> Check:
        """Let in what either lets in."""
        right = as_check(other)
        return Check(
            lambda request: self(request) or right(request),
            f"({self.name} | {right.name})",
            takes_queue=self.takes_queue or right.takes_queue,
            judges_user=self.judges_user or right.judges_user,
        )

    def __ror__(self, other: Callable[[HttpRequest], bool]) -> Check:
        """Let in what either lets in."""
        return as_check(other) | self

    def __and__(self, other: Callable[[HttpRequest], bool]) -> Check:
        """Let in what both let in."""
        right = as_check(other)
        return Check(
            lambda request: self(request) and right(request),
            f"({self.name} & {right.name})",
            takes_queue=self.takes_queue and right.takes_queue,
            judges_user=self.judges_user or right.judges_user,
        )

    def __rand__(self, other: Callable[[HttpRequest], bool]) -> Check:
        """Let in what both let in."""
        return as_check(other) & self

    def __repr__(self) -> str:
        """Return the rule as it was written."""
        return self.name


def as_check(check: Callable[[HttpRequest], bool]) -> Check:
    """Return a callable of the request as a `Check`.

    Raises:
        TypeError: it is not callable, as when a check was called instead of named.
    """
    if isinstance(check, Check):
        return check
    if not callable(check):
        raise TypeError(f"access must be a callable of the request, such as from_queue | superuser, not {check!r}.")
    return Check(check, getattr(check, "__name__", repr(check)))


def find_delivery(request: HttpRequest) -> Delivery | None:
    """Return the proof of a call by a queue, or None.

    From the embedded engine in process, and the test tools, it is an object in the WSGI environ: a network client can
    only set strings there. By HTTP it is made of headers that are signed. From Cloud Tasks it is made of headers that
    App Engine's front end vouches for, or a token.
    """
    delivery = request.META.get(DELIVERY_KEY)
    if isinstance(delivery, Delivery):
        return delivery
    signed = judge_signed(request)
    return signed if isinstance(signed, Delivery) else judge_cloud(request).delivery


def _is_from_queue(request: HttpRequest) -> bool:
    return find_delivery(request) is not None


def _is_from_cron(request: HttpRequest) -> bool:
    return judge_cloud(request).is_cron


class _CsrfCheck(CsrfViewMiddleware):
    """Django's check, with the reason in place of a page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def forbid_view(_: HttpRequest) -> HttpResponse:
    """Stand for the view in Django's CSRF check: not exempt from it."""
    return forbid()


def _passes_csrf(request: HttpRequest) -> bool:
    check = _CsrfCheck(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, forbid_view, (), {}) is None


def _user_check(test: Callable[[Any], bool], name: str) -> Check:
    def judge(request: HttpRequest) -> bool:
        user = getattr(request, "user", None)
        return bool(user is not None and user.is_active and test(user) and _passes_csrf(request))

    return Check(judge, name, takes_queue=False)


from_queue = Check(_is_from_queue, "from_queue", judges_user=False)
from_cron = Check(_is_from_cron, "from_cron", takes_queue=False, judges_user=False)
superuser = _user_check(lambda user: user.is_superuser, "superuser")
staff = _user_check(lambda user: user.is_staff, "staff")


def has_permission(permission: str) -> Check:
    """Return a check that lets in users who have a permission.

    Args:
        permission: `"app_label.codename"`.

    Raises:
        ValueError: it has another form.
    """
    label, dot, codename = permission.partition(".")
    if not (label and dot and codename):
        raise ValueError(f"A permission is named 'app_label.codename', not {permission!r}.")
    return _user_check(lambda user: user.has_perm(permission), f"has_permission({permission!r})")


def forbid() -> HttpResponse:
    """Return the one answer to a caller who may not: 403 without a body."""
    return HttpResponseForbidden()


def turn_away(request: HttpRequest) -> HttpResponse:
    """Return the answer to a request that a check did not let in: 403, or for a genuine call what is wrong with it."""
    verdict = judge_signed(request)
    if BROKEN_OFF in (verdict, judge_cloud(request).status):
        return responses.RETRY.to_response()
    return HttpResponse(status=verdict) if isinstance(verdict, int) else forbid()


def _guard(access: Check) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not access(request):
                return turn_away(request)
            task_token = current_task.set(plain_info(request))
            cron_token = current_cron.set(from_cron(request))
            try:
                return view(request, *args, **kwargs)
            finally:
                current_cron.reset(cron_token)
                current_task.reset(task_token)

        guarded.login_required = False  # type: ignore[attr-defined] # LoginRequiredMiddleware would redirect
        return guarded

    return decorate


#: For views that are no tasks: let in the queue and cron only.
task_only = _guard(from_queue | from_cron)
#: For views that are no tasks: let in the queue, cron and superusers.
task_or_superuser_only = _guard(from_queue | from_cron | superuser)


def plain_info(request: HttpRequest, **more: Any) -> TaskInfo | None:
    """Return what the queue says of its call, or None where the queue did not make it."""
    delivery = find_delivery(request)
    if delivery is None:
        return None
    return TaskInfo(
        name=delivery.name,
        queue=delivery.queue,
        retry_count=delivery.retry_count,
        execution_count=delivery.execution_count,
        eta=delivery.eta,
        previous_status=delivery.previous_status,
        is_last_attempt=delivery.is_last_attempt,
        deadline=delivery.deadline,
        **more,
    )


def is_in_task() -> bool:
    """Tell whether the current call was made by a queue."""
    return current_task.get() is not None


def is_in_cron() -> bool:
    """Tell whether the current call was made by cron."""
    return current_cron.get()


def task_name() -> str | None:
    """Return the name of the current task, or None outside one."""
    task = current_task.get()
    return None if task is None else task.name


def task_queue_name() -> str | None:
    """Return the queue of the current task, or None outside one."""
    task = current_task.get()
    return None if task is None else task.queue


def task_retry_count() -> int | None:
    """Return how many attempts of the current task came before, or None outside one."""
    task = current_task.get()
    return None if task is None else task.retry_count


def task_execution_count() -> int | None:
    """Return how many answers the current task had before, or None outside one."""
    task = current_task.get()
    return None if task is None else task.execution_count
