"""Its settings; what differs from run to run comes from the environment."""

from __future__ import annotations

import os

SECRET_KEY = "tests-only-tests-only-tests-only-tests-only-tests-only"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
ROOT_URLCONF = "tests.datastore.bare.urls"
DATABASES: dict = {}
INSTALLED_APPS = ["soc_tasks"]
MIDDLEWARE = ["tests.datastore.bare.middleware.deliver_some_twice"]
USE_TZ = True
CLOUD_TASKS_PROJECT_ID, CLOUD_TASKS_LOCATION = "demo", "here"
CLOUD_TASKS_QUEUES = [{"name": "default", "retry_min_backoff": 0.1, "retry_max_backoff": 1, "retry_max_attempts": -1}]
_KEYS = os.environ.get("BARE_KEYS", "http://127.0.0.1:1")
SOC_TASKS = {
    "BACKEND": "cloud_tasks",
    "STATE": "datastore",
    **(
        {"DATASTORE_CLIENT": os.environ["BARE_CLIENT"]}
        if "BARE_CLIENT" in os.environ
        else {"DATASTORE_NAMESPACE": os.environ.get("BARE_NAMESPACE", "bare")}
    ),
    "TARGET": os.environ.get("BARE_TARGET", "http"),
    "URL": os.environ.get("BARE_URL", "http://127.0.0.1:1"),
    "SERVICE_ACCOUNT": "tasks@demo.example",
    "OIDC_ISSUER": _KEYS,
    "OIDC_CERTS_URL": f"{_KEYS}/certs",
    "SLICE_SECONDS": float(os.environ.get("BARE_SLICE_SECONDS", "2")),
    "LEASE_SECONDS": 5,
}
