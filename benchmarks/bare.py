"""`echo go | python -m benchmarks.bare`: microseconds of processor time of a request that does nothing, here and now.

It is what a task cannot be cheaper than, and a measure of the machine: goals that are no ratios were set where it took
`REFERENCE`, and are scaled by what it takes here.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.processes import ROOT, python

#: Microseconds where the goals were set: two AMD EPYC processors, Python 3.11.7, Django 5.2.19, nobody else on them.
REFERENCE = 48.0
CALLS = 500


def make_asker(path: str) -> Callable[[], None]:
    """Return what has Django's WSGI handler answer a POST to a path, without a body, as a server would."""
    from django.core.handlers.wsgi import WSGIHandler

    handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "POST", "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost", "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "CONTENT_LENGTH": "0",
        "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
    }  # fmt: skip

    def ask() -> None:
        response = handler({**environ, "wsgi.input": io.BytesIO()}, lambda *_: None)
        response.close()

    return ask


def measure_machine(processes: int = 1) -> float:
    """Return what this module prints, the mean of so many processes at one time.

    Where processors are halves of one core, or others use them, each gets less done while the others work: what is
    measured in several processes is to be compared with this in as many.
    """
    started = [
        subprocess.Popen(
            python("-m", "benchmarks.bare"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return statistics.mean(float(process.communicate()[0]) for process in started)


def main() -> None:
    """Measure a bare site: one URL, no middleware, one database that nobody asks."""
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(ALLOWED_HOSTS=["localhost"], ROOT_URLCONF=__name__, MIDDLEWARE=[], DATABASES=databases)
    django.setup()
    globals()["urlpatterns"] = [path("nothing/", lambda _: HttpResponse())]
    ask, taken = make_asker("/nothing/"), []
    ask()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(11):
        begin = time.process_time()
        for _ in range(CALLS):
            ask()
        taken.append((time.process_time() - begin) / CALLS * 1e6)
    print(f"{statistics.median(taken):.1f}")


if __name__ == "__main__":
    main()
