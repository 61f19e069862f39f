"""What statements cost on SQLite, by its own count: for tests that cost does not grow with the tables."""

from __future__ import annotations

from django.db import connection


class Watch:
    """Counts the steps of SQLite's virtual machine and keeps the statements, while it is entered."""

    def __enter__(self):
        self.steps, self.statements = 0, []
        connection.ensure_connection()
        connection.connection.set_progress_handler(self.count, 1)
        self.wrapper = connection.execute_wrapper(self.keep)
        self.wrapper.__enter__()
        return self

    def __exit__(self, *error):
        self.wrapper.__exit__(*error)
        connection.connection.set_progress_handler(None, 0)

    def count(self):
        self.steps += 1

    def keep(self, execute, sql, params, many, context):
        self.statements.append((sql, params))
        return execute(sql, params, many, context)

    def explain(self):
        """Return the lines of the plans of all statements."""
        lines = []
        with connection.cursor() as cursor:
            for sql, params in self.statements:
                cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
                lines += [row[3] for row in cursor.fetchall()]
        return lines
