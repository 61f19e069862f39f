"""`manage.py`, on a machine whose wall clock is wrong: `python -m tests.faults.skewed SECONDS VERB …`.

Before anything else is imported, so that all of it reads the wrong time.
"""

from __future__ import annotations

import datetime
import sys
import time


class _Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _RIGHT)


_RIGHT = datetime.datetime


def skew(seconds):
    """Set the wall clock of this process."""
    right_time, right_ns = time.time, time.time_ns

    class Skewed(_RIGHT, metaclass=_Kind):
        @classmethod
        def now(cls, tz=None):
            return _RIGHT.now(tz) + datetime.timedelta(seconds=seconds)

    time.time = lambda: right_time() + seconds
    time.time_ns = lambda: right_ns() + round(seconds * 1e9)
    datetime.datetime = Skewed


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    if sys.argv[2] == "web":
        import django

        from tests.faults.web import main

        django.setup()
        main(sys.argv[3])
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", *sys.argv[2:]])
