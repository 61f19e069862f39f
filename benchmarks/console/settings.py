"""The example project, as a site runs it: without DEBUG, whose log of queries takes time."""

from __future__ import annotations

from settings_example import *  # noqa: F403

DEBUG = False
ALLOWED_HOSTS = ["testserver"]
LOGGING = {"version": 1, "disable_existing_loggers": True}
