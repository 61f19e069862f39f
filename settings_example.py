"""Settings of the example project: they work as they are, and each one is there to copy from.

What differs from machine to machine comes from the environment:

    SECRET_KEY           signs sessions and the library's own messages; set your own wherever others can reach the site
    DEBUG                "1" (default here) or "0"
    DATABASE_PATH        the SQLite file; default db.sqlite3 beside this file
    EMAIL_PORT           port of the SMTP server on this machine; default 1025
    TASKS_BACKEND        SOC_TASKS["BACKEND"], "embedded" (default) or "cloud_tasks"
    TASKS_LEASE_SECONDS  SOC_TASKS["LEASE_SECONDS"]
    TASKS_SLICE_SECONDS  SOC_TASKS["SLICE_SECONDS"]
    TASKS_RUNSERVER      SOC_TASKS["RUNSERVER"], "1" (default) or "0"
    TASKS_METRICS_TOKEN  SOC_TASKS["METRICS_TOKEN"], what lets a scraper read the metrics
"""

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent
TASKS_BACKEND = os.environ.get("TASKS_BACKEND", "embedded")

# --- The site ---------------------------------------------------------------------------------------------------------

SECRET_KEY = os.environ.get("SECRET_KEY", "for development only: set SECRET_KEY where others can reach this site")
DEBUG = os.environ.get("DEBUG", "1") == "1"
# The first entry is also the Host header of tasks that the embedded engine runs.
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "urls"

INSTALLED_APPS = [
    "soc_tasks",
    "soc_tasks.engine",  # the embedded engine's own tables; leave it out on Cloud Tasks
    "django_htmx",  # keeps the console's pages up to date
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "examples.email_students",
    "examples.gazetteer",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "examples" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# The site and the engine share one SQLite file, so that a task can be queued in the same transaction as what it is for.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE_PATH", BASE_DIR / "db.sqlite3"),
        "OPTIONS": {
            # A transaction takes the write lock when it begins and waits for it. The default takes it at the first
            # write, and fails at once ("database is locked") if another connection wrote since the first read.
            "transaction_mode": "IMMEDIATE",
            # Seconds to wait for that lock.
            "timeout": 20,
            # WAL: readers and the one writer do not wait for each other. synchronous=NORMAL: the crash of a process
            # loses nothing, a power cut may lose the last moments before it (never consistency). FULL, the default,
            # saves these too, and costs a flush to the disk for each commit.
            # wal_autocheckpoint=0: only the worker copies the log to the database, safely on every version of SQLite.
            # Where there is no worker, on Cloud Tasks, leave that out: nobody else would.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            + ("PRAGMA wal_autocheckpoint=0;" if TASKS_BACKEND == "embedded" else ""),
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Mail goes to an SMTP server on this machine; `make demo` and `make serve` start one.
if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "127.0.0.1", "port": int(os.environ.get("EMAIL_PORT", "1025")), "timeout": 10},
        },
    }
else:
    EMAIL_HOST = "127.0.0.1"
    EMAIL_PORT = int(os.environ.get("EMAIL_PORT", "1025"))
    EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = "Program office <office@example.org>"

STATIC_URL = "static/"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# --- soc_tasks --------------------------------------------------------------------------------------------------------

# Queues beside "default", which is always there. Numbers may be strings, too.
CLOUD_TASKS_QUEUES = [
    {
        "name": "mail",
        "rate_per_second": 500,  # tasks started in a second
        "rate_max_concurrent": 2,  # tasks running at one time, over all workers
        "retry_max_attempts": 50,  # then it is a dead letter; default 100, -1 without limit
    },
]

# Only on Cloud Tasks: where the queues live.
# CLOUD_TASKS_PROJECT_ID = "my-project"
# CLOUD_TASKS_LOCATION = "europe-west1"

# Every key with its default; leave out what you do not change.
SOC_TASKS: dict[str, object] = {
    # "embedded": rows in DATABASE, run by `manage.py tasks run`. "cloud_tasks": Google Cloud Tasks. "memory": tests.
    "BACKEND": TASKS_BACKEND,
    # The alias that holds the engine's tables and the library's own.
    "DATABASE": "default",
    # How the worker calls tasks: "in_process", or "http": this site, at URL.
    "DISPATCH": "in_process",
    # Base URLs of other services by name, for startTask(service=…): {"mail": "https://mail.example.org"}.
    "SERVICES": {},
    # Host header of tasks run in process; None takes the first concrete entry of ALLOWED_HOSTS.
    "HOST": None,
    # Seconds after which a slice of an iteration hands over to the next; None: 25, on App Engine 570.
    "SLICE_SECONDS": float(os.environ.get("TASKS_SLICE_SECONDS", "0")) or None,
    # Seconds that a batch of an iteration should take, where its size is not given.
    "BATCH_SECONDS": 1.0,
    # Seconds without a heartbeat after which a worker's tasks go to others. Longer than any pause of a healthy process.
    "LEASE_SECONDS": float(os.environ.get("TASKS_LEASE_SECONDS", "30")),
    # Seconds for which a name that you chose stays taken after its task has ended.
    "TOMBSTONE_SECONDS": 86400.0,
    # Days for which receipts, ended iterations, dead letters and undelivered tasks are kept.
    "RETENTION_DAYS": 31.0,
    # Whether `manage.py runserver` runs due tasks by itself.
    "RUNSERVER": os.environ.get("TASKS_RUNSERVER", "1") == "1",
    # cloud_tasks: "app_engine" or "http" (Cloud Run or any other service).
    "TARGET": "app_engine",
    # Base URL of this site, https://…, for DISPATCH "http" and for Cloud Tasks with the http target.
    "URL": None,
    # http target: the account whose OIDC token is sent and demanded, and the token's audience (None: URL).
    "SERVICE_ACCOUNT": None,
    "AUDIENCE": None,
    # The account of Cloud Scheduler's tokens, for from_cron (None: SERVICE_ACCOUNT).
    "CRON_SERVICE_ACCOUNT": None,
    # Who issues these tokens, and where the keys are that they are judged by: others than Google's in development only.
    "OIDC_ISSUER": "https://accounts.google.com",
    "OIDC_CERTS_URL": "https://www.googleapis.com/oauth2/v1/certs",
    # cloud_tasks: whether tasks stay on the version that queued them; else they go to the latest.
    "PIN_VERSION": False,
    # Where payloads, runs, outbox and dead letters live: "django" (its database) or "datastore".
    "STATE": "django",
    # Datastore's project, database and namespace (None: the environment's), or the dotted path of what makes a client.
    "DATASTORE_PROJECT": None,
    "DATASTORE_DATABASE": None,
    "DATASTORE_NAMESPACE": None,
    "DATASTORE_CLIENT": None,
    # Whose sessions may read /_tasks/overview/ and /_tasks/metrics/: "superuser", "staff", a permission, None (nobody);
    # and the bearer token of a scraper, 16 characters or more, from the environment or a secret store.
    "METRICS_ACCESS": "staff",
    "METRICS_TOKEN": os.environ.get("TASKS_METRICS_TOKEN") or None,
    # More packages whose functions may be deferred, beside those of INSTALLED_APPS.
    "DEFERRABLE": (),
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    # INFO has a line for each task's end, WARNING only what went wrong.
    "loggers": {"soc_tasks": {"handlers": ["console"], "level": "INFO"}},
}
