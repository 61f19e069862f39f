"""A web process: enqueues tasks that leave an effect, one after the other, until its input ends.

`python -m tests.faults.web PREFIX` prints for each task "accepted NAME" or "refused NAME MESSAGE".
"""

from __future__ import annotations

import select
import sys

import django

#: Seconds between two tasks.
PAUSE = 0.02


def main(prefix):
    from django.db import close_old_connections

    from soc_tasks import BackendUnavailableError, startTask

    print("ready", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        name = f"{prefix}{number}"
        number += 1
        # As Django does before each request.
        close_old_connections()
        try:
            # Every other one has a name that was chosen, which is looked up first.
            startTask("effect", {"name": name, "weight": "x" * 2000}, name=name if number % 2 else None)
        except BackendUnavailableError as error:
            print(f"refused {name} {' '.join(str(error).split())}", flush=True)
        else:
            print(f"accepted {name}", flush=True)


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1])
