"""Google Cloud Tasks: tasks are kept and called by the service, of which this process is a client."""
