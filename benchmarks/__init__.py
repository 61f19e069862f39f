"""Measurements against the raw database and against peers, side by side in one run. `make bench` runs them."""
