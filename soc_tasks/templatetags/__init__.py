"""Template tags: `{% load soc_tasks %}`."""
