"""Plain views for the engine's tests. What they saw goes to `seen`, or to a file named in the body."""

from __future__ import annotations

import os
import signal
import threading

from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt

from soc_tasks.values import COUNTDOWN_HEADER, DELIVERY_KEY, OUTCOME_HEADER

#: (path, body, delivery) of each call, in order.
seen: list = []
#: Set by a test to let `wait` answer; `waiting` counts those that have come.
let_go = threading.Event()
waiting = threading.Semaphore(0)


@csrf_exempt
def noop(request):
    return HttpResponse()


def count(request):
    """Note the call; a body that names a file gets a line there, so that other processes can be counted."""
    seen.append((request.get_full_path(), request.body, request.environ[DELIVERY_KEY]))
    if request.body.startswith(b"/"):
        name, _, line = request.body.decode().partition("\n")
        with open(name, "a") as file:
            file.write(f"{line} {os.getpid()}\n")
    return HttpResponse()


def answer(request, status):
    seen.append((request.get_full_path(), request.body, request.environ[DELIVERY_KEY]))
    headers = {COUNTDOWN_HEADER: request.GET["countdown"]} if "countdown" in request.GET else {}
    return HttpResponse(status=status, headers=headers)


def busy(request):
    seen.append((request.get_full_path(), request.body, request.environ[DELIVERY_KEY]))
    return HttpResponse(status=500, headers={OUTCOME_HEADER: "busy"})


def looks(request):
    """Note whether Django looks at this process's connections after each request."""
    receivers = [receiver for receiver, _ in request_finished.send_robust(sender=None)]
    with open(request.body.decode().partition("\n")[0], "a") as file:
        file.write(f"{close_old_connections in receivers} {os.getpid()}\n")
    return HttpResponse()


def wait(request):
    """Answer when the test says so, or, in a process of its own, when it is told to stop."""
    delivery = request.environ[DELIVERY_KEY]
    count(request)
    waiting.release()
    while not let_go.wait(0.01):
        if delivery.stopping():
            return HttpResponse(status=500)
    return HttpResponse()


def suicide(request):
    """Take the whole process down, as a poison task does."""
    count(request)
    os.kill(os.getpid(), signal.SIGKILL)


def crash(request):
    raise RuntimeError("broken view")


def leave(request):
    raise SystemExit(3)
