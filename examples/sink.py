"""An SMTP server on the loopback interface that keeps nothing but a count: which student's mail arrived how often."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiosmtpd.smtp import SMTP

STUDENT = re.compile(rb"^X-Student: (\d+)\r?$", re.MULTILINE)


class MailSink:
    """Count mails in a thread of its own; a context manager.

    Args:
        on_mail: called in that thread with the number of mails so far.
    """

    def __init__(self, on_mail: Callable[[int], None] | None = None) -> None:
        self.arrived: Counter[int] = Counter()
        self.port = 0
        self._on_mail = on_mail
        self._total = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="mail-sink", daemon=True)

    @property
    def total(self) -> int:
        """Return how many mails have arrived."""
        return self._total

    def __enter__(self) -> MailSink:
        self._thread.start()
        if not self._ready.wait(timeout=10):
            raise RuntimeError("The SMTP server did not start within 10 seconds.")
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=5)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Count a mail; only after that does its sender hear that it was taken."""
        self._total += 1
        headers, _, _ = envelope.content.partition(b"\r\n\r\n")
        if found := STUDENT.search(headers):
            self.arrived[int(found[1])] += 1
        if self._on_mail:
            self._on_mail(self._total)
        return "250 OK"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: SMTP(self, hostname="localhost"), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
