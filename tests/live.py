"""Real servers on 127.0.0.1 in threads: the test site as Django serves it, and servers that misbehave by a script."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from soc_tasks.meta import Meta
from soc_tasks.signatures import Signed, sign, unquote_path, write_facts
from soc_tasks.values import DELIVERY_HEADER, META_HEADER, SIGNATURE_HEADER, Delivery

FORM = "application/x-www-form-urlencoded"
META = Meta(start_id="0" * 32).to_header()
#: Key and certificate of 127.0.0.1, signed by nobody else; valid for a hundred years.
CERTIFICATE = Path(__file__).with_name("localhost.pem")
#: Seconds after which a test gives up.
PATIENCE = 30


class _Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class _Server(ThreadedWSGIServer):
    # So that the end waits for them: they close their database connections.
    daemon_threads = False

    def __init__(self, app, secure):
        self.sockets, self.environs = [], []
        self.scheme = "https" if secure else "http"
        super().__init__(("127.0.0.1", 0), _Handler)
        if secure:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

        def keep(environ, start_response):
            self.environs.append(environ)
            return app(environ, start_response)

        self.set_app(keep)

    def process_request(self, request, client_address):
        self.sockets.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        pass

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}"


@contextmanager
def serve(app=None, *, secure=False):
    """Serve a WSGI application, by default the site of the settings; its `sockets` and `environs` tell what came."""
    server = _Server(app if app is not None else WSGIHandler(), secure)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        for each in server.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join(PATIENCE)


@contextmanager
def script(act):
    """Run `act(connection, number)` for each connection that comes; give the base URL and the number of connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    count, threads, over = [], [], threading.Event()

    def run(connection, number):
        with connection, suppress(OSError):
            connection.settimeout(PATIENCE)
            act(connection, number)

    def accept():
        with suppress(OSError):
            while not over.is_set():
                connection, _ = listener.accept()
                count.append(connection)
                threads.append(threading.Thread(target=run, args=(connection, len(count)), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", count
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in count:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (acceptor, *threads):
            thread.join(PATIENCE)


def read_request(connection):
    """Read one request off a socket; return its head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise OSError("nothing more comes")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head, body


def sign_headers(target, body=b"", *, method="POST", meta=META, content_type=FORM, now=None, **delivery):
    """Return the headers with which the engine would POST a task."""
    delivery = Delivery(**{"queue": "default", "name": "made", **delivery})
    path, _, query = target.partition("?")
    facts = write_facts(delivery, body, now)
    signed = Signed(
        method=method, path=unquote_path(path), query=query, content_type=content_type, facts=facts, meta=meta
    )
    return {
        "Content-Type": content_type,
        META_HEADER: meta,
        DELIVERY_HEADER: facts,
        SIGNATURE_HEADER: sign(signed),
    }


def talk(server, target, headers, body=b"", *, method="POST", length=None, half_close=True):
    """Send a request as it is given, raw, and return status, head and body of the answer.

    Args:
        server: who is asked.
        target: path and query.
        headers: pairs, or a dict; values are str (latin-1).
        body: what is sent.
        method: HTTP method.
        length: Content-Length; None: that of the body.
        half_close: whether to say that nothing more comes.
    """
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    lines += [f"{name}: {value}" for name, value in pairs] + ["Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            assert part, "the connection was closed without an answer"
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        with suppress(OSError):
            while half_close and (part := connection.recv(65536)):
                rest += part
    return int(head.split()[1]), head, rest
