"""The official client of the Cloud Tasks API, without credentials."""

from __future__ import annotations

from contextlib import contextmanager

import grpc
from google.cloud.tasks_v2 import CloudTasksClient
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport


@contextmanager
def make_client(port):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
