"""Connections that keep a deadline as a whole, whatever the other side sends and how slowly.

A socket's timeout begins anew with each byte that arrives: a server that trickles would hold a thread for ever. Here
every read gets what is left of the attempt's time. Beside that: urllib3, which keeps connections for the next call.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

#: Seconds until a connection that does not come about is given up, for each address of the host.
CONNECT: Final = 10.0
#: Seconds for which an unused connection may be used again. Servers close theirs, gunicorn after two, and a request
#: that meets the closing is a failed attempt.
IDLE: Final = 1.5
#: Connections that are kept for each host; threads beyond have theirs for one call.
KEPT: Final = 1000
#: Bytes of an answer's body that are read, so that its connection can be used again; nobody wants them.
MOST_BODY: Final = 65_536

#: Linux only.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class _Call(threading.local):
    """The call that this thread makes."""

    #: By when it must have ended, on the monotonic clock.
    deadline = 0.0

    def time_left(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the attempt is over")
        return left


#: Set before each call.
call: Final = _Call()


class _Reader(io.RawIOBase):
    """Reads from a socket, each time with what is left of the call's time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Holds the socket open until it is closed itself, as http.client expects.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(call.time_left())
        if _QUICK_ACK is not None:
            # A server that writes its answer in pieces (Django's own does) waits before each for the one before it to
            # be acknowledged, which takes 40 ms unless asked for. The kernel forgets it again and again.
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock))


class _Kept:
    """What both kinds of connections do."""

    sock: Any
    timeout: Any
    response_class = _Response
    _used = 0.0

    def connect(self) -> None:
        patience, self.timeout = self.timeout, min(CONNECT, call.time_left())
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self.timeout = patience
        self.sock.settimeout(call.time_left())

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self._used = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._used < IDLE and super().is_connected  # type: ignore[misc]


class _Connection(_Kept, HTTPConnection):  # type: ignore[misc]
    pass


class _SecureConnection(_Kept, HTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def make_manager(hosts: int) -> PoolManager:
    """Return what keeps the connections, for so many hosts; certificates are verified, no proxies are asked for."""
    manager = PoolManager(num_pools=hosts, maxsize=KEPT, retries=False)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def send(pool: Any, method: str, target: str, body: bytes | None, headers: Any) -> tuple[int, Any]:
    """Make one request within the time of the call, with no second try; return status and headers of its answer.

    Args:
        pool: connections to the host.
        method: HTTP method.
        target: path and query string.
        body: what is sent, or None.
        headers: an `HTTPHeaderDict`.

    Raises:
        urllib3.exceptions.HTTPError, OSError: there was no whole answer.
    """
    # Gives the response back as soon as its headers are there.
    response = pool.urlopen(
        method,
        target,
        body=body,
        headers=headers,
        timeout=call.time_left(),
        retries=False,
        redirect=False,
        assert_same_host=False,
        preload_content=False,
        decode_content=False,
    )
    try:
        _drain(response)
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return response.status, response.headers


def _drain(response: Any) -> None:
    left = MOST_BODY
    while left > 0:
        part = response.read(left)
        if not part:
            return
        left -= len(part)
    # More than anybody needs: the answer counts, its connection is not used again.
    response.close()
