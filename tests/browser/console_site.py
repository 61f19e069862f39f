"""What the console's browser test adds to the example project."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.core.mail.backends.dummy import EmailBackend
from django.http import HttpResponse
from django.urls import include, path

from soc_tasks import FatalTaskError, task
from tests.browser.console_data import POLICY

#: Seconds that a mail takes: all of them, long enough to look on and to pause.
MAIL_SECONDS = 0.004


class SlowMail(EmailBackend):
    """Sends nothing, and takes as long as a mail server."""

    def send_messages(self, email_messages):
        messages = list(email_messages)
        time.sleep(MAIL_SECONDS * len(messages))
        return len(messages)


@task
def fragile(request):
    """Fail for good until somebody has mended it."""
    if not Path(os.environ["FIXED"]).exists():
        raise FatalTaskError("<script>document.title = 'broken in'</script>")
    Path(os.environ["RAN"]).write_text(request.POST["note"])


def strict_policy(get_response):
    def middleware(request):
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


urlpatterns = [
    path("fragile/", fragile, name="fragile"),
    # Browsers ask for it, and tell their console when it is not there.
    path("favicon.ico", lambda request: HttpResponse(status=204)),
    path("", include("urls")),
]
