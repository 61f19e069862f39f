"""In-process dispatch: a task becomes a WSGI request to this very site, through URL conf and middleware.

The `Delivery` that is put into the WSGI environ proves the call: a network client can only ever set strings there.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIHandler, get_path_info
from django.urls import Resolver404, get_script_prefix, get_urlconf, resolve, set_script_prefix

from soc_tasks.conf import get_settings
from soc_tasks.engine.answers import OVERLOADED, make_answer
from soc_tasks.values import COUNTDOWN_HEADER, DELIVERY_KEY, OUTCOME_HEADER, Answer, Delivery, Task

logger = logging.getLogger("soc_tasks.engine")

#: Characters of an exception that are kept until the next attempt.
LONGEST_ERROR: Final = 1000

Handler = Callable[[dict[str, Any], Callable[..., Any]], Any]


def dispatch_host() -> str:
    """Return the Host header of tasks: that of `URL` by HTTP; in process `HOST`, or what ALLOWED_HOSTS lets through."""
    settings = get_settings()
    if settings.backend == "embedded" and settings.dispatch == "http" and settings.url:
        return urlsplit(settings.url).netloc
    if host := settings.host:
        return host
    for entry in django_settings.ALLOWED_HOSTS:
        if entry != "*" and not entry.startswith("."):
            return str(entry)
    return "localhost"


@lru_cache(maxsize=1024)
def _environ_key(header: str) -> str:
    name = header.upper().replace("-", "_")
    return "CONTENT_TYPE" if name == "CONTENT_TYPE" else f"HTTP_{name}"


def _decode(path: str) -> str:
    """Return a quoted path as WSGI wants it: its bytes as latin-1 text (PEP 3333)."""
    return unquote_to_bytes(path).decode("latin-1") if "%" in path or not path.isascii() else path


def _describe(error: BaseException) -> str:
    """Return an exception as every database can keep it."""
    text = f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _close(response: Any, task: Task) -> None:
    """Close a response; what fails then comes after the answer, and does not change it."""
    close = getattr(response, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        logger.exception("something failed after task %s of queue %s was answered", task.name, task.queue)


def _resolves(environ: dict[str, Any]) -> bool:
    """Tell whether the URL conf that was in force knows the path of a request that was just answered."""
    try:
        resolve(get_path_info(environ) or "/", get_urlconf())
    except Resolver404:
        return False
    return True


class InProcessDispatcher:
    """Calls the site's WSGI handler; one per process, shared by its threads.

    Args:
        handler: the WSGI application; None makes Django's, middleware loaded once.
        own_threads: whether nothing but calls is done in the threads that call. In others the script prefix, which
            Django's handler sets and leaves, is put back.
    """

    def __init__(self, handler: Handler | None = None, *, own_threads: bool = False) -> None:
        self._handler = handler if handler is not None else WSGIHandler()
        self._own_threads = own_threads
        host = dispatch_host()
        name, _, port = host.partition(":") if not host.startswith("[") else (host, "", "")
        secure = bool(django_settings.SECURE_SSL_REDIRECT)
        self._base = {
            "REQUEST_METHOD": "POST",
            "SERVER_NAME": name,
            "SERVER_PORT": port or ("443" if secure else "80"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": host,
            "HTTP_USER_AGENT": "soc_tasks",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if secure else "http",
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        proxy = django_settings.SECURE_PROXY_SSL_HEADER
        if secure and proxy:
            # Behind a proxy Django believes this header alone, and would redirect the task.
            self._base[proxy[0]] = proxy[1]

    def __call__(self, task: Task, delivery: Delivery) -> Answer:
        """Make the call and return its answer; an exception that leaves the site counts as a 500."""
        if self._own_threads:
            return self._call(task, delivery)
        prefix = get_script_prefix()
        try:
            return self._call(task, delivery)
        finally:
            set_script_prefix(prefix)

    def _call(self, task: Task, delivery: Delivery) -> Answer:
        seen: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            seen[:] = [int(status[:3]), headers]

        unknown = False
        try:
            environ = self._environ(task, delivery)
            response = self._handler(environ, start_response)
            try:
                # While URL conf and language are those of the request.
                unknown = seen[0] == 404 and not _resolves(environ)
                # Only what is streamed runs as it is read; nobody wants the content.
                if getattr(response, "streaming", True):
                    for _ in response:
                        continue
            finally:
                _close(response, task)
        except Exception as error:
            logger.exception("the site broke on task %s of queue %s", task.name, task.queue)
            delivery.failures.append(error)
            return Answer(status=500, note=_describe(error))
        status, headers = seen
        outcome = countdown = retry_after = None
        for key, value in headers:
            if key == OUTCOME_HEADER:
                outcome = value
            elif key == COUNTDOWN_HEADER:
                countdown = value
            elif status in OVERLOADED and key.lower() == "retry-after":
                retry_after = value
        if unknown and outcome is None:
            # Not a view's own 404: another worker, of a newer release, may have a view there.
            outcome = "unknown"
        answer = make_answer(status, outcome, countdown, retry_after)
        # For whoever looks at a task that is tried again.
        return replace(answer, note=_describe(delivery.failures[-1])) if delivery.failures else answer

    def _environ(self, task: Task, delivery: Delivery) -> dict[str, Any]:
        path, _, query = task.path.partition("?")
        path = path[len(task.script_name) :]
        environ = dict(self._base)
        environ["SCRIPT_NAME"] = _decode(task.script_name)
        environ["PATH_INFO"] = _decode(path)
        environ["QUERY_STRING"] = query
        environ["CONTENT_LENGTH"] = str(len(task.body))
        for key, value in task.headers.items():
            environ[_environ_key(key)] = value
        # As Cloud Tasks tells HTTP targets; for views that read them. They prove nothing, here or there.
        environ["HTTP_X_CLOUDTASKS_QUEUENAME"] = delivery.queue
        environ["HTTP_X_CLOUDTASKS_TASKNAME"] = delivery.name
        environ["HTTP_X_CLOUDTASKS_TASKRETRYCOUNT"] = str(delivery.retry_count)
        environ["HTTP_X_CLOUDTASKS_TASKEXECUTIONCOUNT"] = str(delivery.execution_count)
        if delivery.eta is not None:
            environ["HTTP_X_CLOUDTASKS_TASKETA"] = f"{delivery.eta.timestamp():.6f}"
        if delivery.previous_status is not None:
            environ["HTTP_X_CLOUDTASKS_TASKPREVIOUSRESPONSE"] = str(delivery.previous_status)
            environ["HTTP_X_CLOUDTASKS_TASKRETRYREASON"] = ""
        environ["wsgi.input"] = io.BytesIO(task.body)
        environ["wsgi.errors"] = sys.stderr
        environ[DELIVERY_KEY] = delivery
        return environ
