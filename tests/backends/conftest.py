"""What is left out where tests run on a database server."""

from __future__ import annotations

from tests.backends.sites.databases import ON_SQLITE

#: It has databases of its own, and says nothing of the site's.
collect_ignore = [] if ON_SQLITE else ["test_emulator.py"]
