"""Deferred calls beside other queues for Django and Python, and their arguments beside pickle, in one run."""
