"""What an answer says beside its status."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from soc_tasks.engine.answers import make_answer, read_countdown, read_retry_after
from soc_tasks.values import MAX_SECONDS, Answer

NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.5", 2.5),
        ("0", 0),
        (" 3 ", 3),
        ("-1", 0),
        ("1e999", MAX_SECONDS),
        ("9" * 400, MAX_SECONDS),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("1, 2", None),
    ],
)
def test_countdowns(text, seconds):
    assert read_countdown(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (" 7 ", 7),
        ("9" * 5000, MAX_SECONDS),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", MAX_SECONDS),
        ("1.5", None),
        ("-1", None),
        ("\u0661", None),
        ("", None),
        ("soon", None),
        ("Wed, 99 Oct 2026 99:99:99 GMT", None),
        ("Wed, 21 Oct 2026 07:28:30 +9999999999", None),
    ],
)
def test_retry_after(text, seconds):
    assert read_retry_after(text, NOW) == seconds


def test_retry_after_means_something_with_two_statuses_only():
    assert [make_answer(status, None, None, "5").retry_after for status in (200, 301, 413, 429, 500, 503)] == [
        None, None, None, 5.0, None, 5.0,
    ]  # fmt: skip


def test_what_nobody_knows_is_not_said():
    assert make_answer(500, "busy", "1", None) == Answer(status=500, outcome="busy", countdown=1.0)
    assert make_answer(500, "lazy", "x", None) == Answer(status=500)
