"""The example project under a strict policy, with a task that can be mended, and mail that takes its time."""

from __future__ import annotations

import django

from settings_example import *  # noqa: F403
from settings_example import MIDDLEWARE

ROOT_URLCONF = "tests.browser.console_site"
MIDDLEWARE = ["tests.browser.console_site.strict_policy", *MIDDLEWARE]

MAIL = "tests.browser.console_site.SlowMail"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": MAIL}}
else:
    EMAIL_BACKEND = MAIL
