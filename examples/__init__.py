"""Small apps of the example project, `make demo` and `make serve`. None of it ships with soc_tasks."""
