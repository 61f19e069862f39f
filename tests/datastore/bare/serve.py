"""`python -m tests.datastore.bare.serve PROCESSES KILLS SECONDS SEED`: the site in forked processes that are killed.

It prints its port, then a line for each kill. Standard input's end ends it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


class _Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def work(listening):
    """Serve, until killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from django.core.wsgi import get_wsgi_application

    server = _Server(listening.getsockname(), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = listening.getsockname()
    server.setup_environ()
    server.set_app(get_wsgi_application())
    server.serve_forever(0.05)


def fork(listening):
    """Return the process id of a process that serves."""
    process = os.fork()
    if process == 0:
        try:
            work(listening)
        finally:
            os._exit(1)
    return process


def main(processes, kills, seconds, seed):
    """Serve, and kill so many of its processes by the way."""
    import django

    django.setup()
    # Imported once, for all that are forked; none may have a channel before that.
    import google.cloud.datastore  # noqa: F401
    from django.urls import resolve

    import soc_tasks.state.datastore  # noqa: F401

    resolve("/visit/")
    draw = random.Random(seed)
    with socket.create_server(("127.0.0.1", int(os.environ["BARE_PORT"])), backlog=128) as listening:
        children = [fork(listening) for _ in range(processes)]
        print(listening.getsockname()[1], flush=True)
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        killed = 0
        while not ended.wait(draw.uniform(0.5, 1.5) * seconds):
            if killed < kills:
                place = draw.randrange(processes)
                os.kill(children[place], signal.SIGKILL)
                os.waitpid(children[place], 0)
                children[place] = fork(listening)
                killed += 1
                print("killed", flush=True)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
