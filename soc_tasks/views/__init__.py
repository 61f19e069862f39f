"""HTTP in, HTTP out: access, parsing, running, answering."""
