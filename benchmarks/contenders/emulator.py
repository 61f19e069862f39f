"""Run gcloud-tasks-emulator on 127.0.0.1 only, where its own command listens to everybody."""

from __future__ import annotations

import sys
from concurrent import futures
from typing import Any

from gcloud_tasks_emulator import server
from gcloud_tasks_emulator.cloudtasks_pb2_grpc import add_CloudTasksServicer_to_server


class LocalThread(server.APIThread):  # type: ignore[misc]
    """Its own thread, at another address."""

    _httpd: Any

    def run(self) -> None:
        """Serve."""
        import grpc

        self._httpd = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        add_CloudTasksServicer_to_server(server.Greeter(self._state), self._httpd)
        self._httpd.add_insecure_port(f"127.0.0.1:{self._port}")
        self._httpd.start()


if __name__ == "__main__":
    server.APIThread = LocalThread
    server.create_server("127.0.0.1", int(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), [sys.argv[3]]).run()
