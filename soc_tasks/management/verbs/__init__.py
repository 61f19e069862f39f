"""The verbs of `manage.py tasks`, a module each."""
