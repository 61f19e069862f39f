"""The keys of tokens, by HTTP: as certificates, as Google publishes its own, and as a JSON Web Key Set."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from soc_tasks.engine.server.tokens import Tokens

#: Where they are.
CERTIFICATES, KEY_SET, DISCOVERY = "/certs", "/jwks", "/.well-known/openid-configuration"
_MAX_AGE: Final = 300
#: Seconds that a client may take for its request.
_PATIENCE: Final = 5.0


class KeyServer:
    """Serves keys in a thread of its own.

    Args:
        host: address to listen on.
        port: port; 0: any that is free.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._pages: dict[str, Any] = {}
        pages = self._pages

        class Handler(BaseHTTPRequestHandler):
            timeout = _PATIENCE

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                body = json.dumps(page or {"error": "not found"}).encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", f"public, max-age={_MAX_AGE}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="soc_tasks-keys", daemon=True
        )
        self.port: int = self._server.server_address[1]

    def start(self, tokens: Tokens, base: str) -> None:
        """Serve the keys of `tokens`; `base`: URL under which clients find this."""
        self._pages.update(
            {
                CERTIFICATES: tokens.certificates(),
                KEY_SET: tokens.key_set(),
                DISCOVERY: {
                    "issuer": tokens.issuer,
                    "jwks_uri": f"{base}{KEY_SET}",
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                },
            }
        )
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
