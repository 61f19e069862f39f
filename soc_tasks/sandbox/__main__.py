"""`python -m soc_tasks.sandbox`: manage.py of a site in a sandbox, which ends when its standard input does.

Started by the sandbox, and under autoreload again by itself. Where the server is comes from the environment here, and
nowhere else: no site outside of a sandbox reads that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Final

from soc_tasks.engine.stopping import call_at_end_of_input
from soc_tasks.sandbox.site import apply_environment

#: Seconds in which this process ends by itself when its standard input has ended.
GRACE: Final = 5.0


def main() -> None:
    """Run a command of the site."""
    call_at_end_of_input(_end)
    from django.core.management import execute_from_command_line

    apply_environment()
    execute_from_command_line(["manage.py", *sys.argv[1:]])


def _end() -> None:
    threading.Timer(GRACE, os._exit, (1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
