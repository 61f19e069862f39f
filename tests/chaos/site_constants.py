"""Numbers that the views and the tests share; a test must not import the views, whose site is another."""

import os

#: Rows of a batch: in the kill run, and where each statement counts.
BATCH = int(os.environ.get("SOC_TASKS_CHAOS_BATCH", "20"))
SMALL_BATCH = 2
#: Seconds until an iteration that has ended would start again.
TOMORROW = 86_400.0
#: Shards of an iteration, and the numbers of the effects that its finalize leaves, and a shard that took over a part.
SHARDS = 8
END = -1
TAKEN_OVER = -2
