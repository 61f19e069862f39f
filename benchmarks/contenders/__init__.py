"""Who is measured: each module `on_*.py` is one, in a process of its own and, peers, in an environment of its own."""
