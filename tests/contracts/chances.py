"""What may happen to a queue: strategies for random histories."""

from __future__ import annotations

from hypothesis import strategies as st

from soc_tasks.values import Answer, RetryOptions

DAY = 86400
#: What CLOUD_TASKS_QUEUES must say; "plain" and "other" are not configured.
CONFIGURED = [
    {"name": "slow", "rate_per_second": 2},
    {"name": "fast", "rate_per_second": 100},
    {"name": "narrow", "rate_max_concurrent": 2},
]
NAMES = ("plain", "other", "slow", "fast", "narrow")
CHOSEN = ("x", "y", "Y")

queues = st.sampled_from(("plain", "narrow", *NAMES))
chosen = st.sampled_from(CHOSEN)
subsets = st.one_of(st.none(), st.none(), st.sets(queues, max_size=3))
numbers = st.integers(0, 99)
retries = st.sampled_from(
    (
        None,
        None,
        RetryOptions(max_attempts=1),
        RetryOptions(max_attempts=1),
        RetryOptions(max_attempts=2, min_backoff=0),
        RetryOptions(max_attempts=2, max_retry_duration=60),
        RetryOptions(max_attempts=-1, max_retry_duration=3600, min_backoff=10, max_doublings=2),
    )
)
#: Queue, chosen name or none, seconds until it is due, retry options.
tasks = st.tuples(queues, st.none() | chosen, st.sampled_from((None, None, None, -9, 0.5, 5, 3600, 20 * DAY)), retries)
answers = st.sampled_from(
    (
        Answer(status=500),
        Answer(status=500, outcome="busy"),
        Answer(status=500, outcome="unknown"),
        Answer(status=200),
        Answer(status=500, countdown=42.0),
        Answer(status=504),
        Answer(status=503, retry_after=7.0),
        "returned",
        "put off",
        "none yet",
    )
)
moves = st.sampled_from((None, None, 0.1, 0.5, 1, 2.5, 10, 61, 200, 3600, DAY, 15 * DAY))
