"""Melange's own example: mail every student of a program, in batches, from one click of an admin."""
