"""Iterations beside other ways to go over rows."""
