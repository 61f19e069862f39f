"""Numbers that the views and the test share; the test must not import the views, whose site is another."""

BATCH = 50
ROWS = 20_000
