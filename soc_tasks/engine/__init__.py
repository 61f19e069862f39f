"""The embedded engine: tasks as rows of the site's own database, and the worker that calls them."""
