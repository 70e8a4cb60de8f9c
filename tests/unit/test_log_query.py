from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.clock import uuid7
from circuit_script.errors import LogQueryRefused
from circuit_script.telemetry import Cursor, LogQuery


def test_a_question_is_read_as_it_was_meant() -> None:
    execution = uuid7()
    found = LogQuery.parse(
        f'level:ERROR handler:score tenant:acme record:4711 user:ann execution:{execution} trace:{execution} '
        'lead=4711 address.city="New York" "no score" word https://example.com/a 12:30'
    )  # fmt: skip
    assert found == LogQuery(
        level="error", handler="score", tenant="acme", record="4711", user="ann", execution=execution,
        trace=execution.hex, where=(("lead", "4711"), ("address.city", "New York")),
        text='"no score" word https://example.com/a 12:30',
    )  # fmt: skip
    assert found.words == ["no score", "word", "https://example.com/a", "12:30"]
    assert LogQuery.parse("  ") == LogQuery()
    back = LogQuery.parse("since:2h until:2026-05-01T08:00+00:00")
    assert back.since is not None
    assert abs(back.since - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=1)
    assert back.until == datetime(2026, 5, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ('word "open', 5, "not closed"),
        ("a levle:error", 2, "Did you mean 'level'"),
        ("level:loud", 0, "none of debug"),
        ("since:yesterday", 0, "no moment"),
        ("execution:4711", 0, "execution"),
        ("trace:xyz", 0, "no trace id"),
        ("level:info level:error", 11, "twice"),
        ("w " * 50, 80, "at most"),
        ("x" * 5000, 4000, "at most"),
    ],
)
def test_nonsense_is_refused_with_its_place(text: str, position: int, words: str) -> None:
    with pytest.raises(LogQueryRefused, match=words) as refused:
        LogQuery.parse(text)
    assert refused.value.position == position


@given(st.text(max_size=200))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        refused = -LogQuery.parse(text).limit
    except LogQueryRefused as error:
        refused = error.position
    assert refused == -100 or 0 <= refused <= len(text)


def test_a_cursor_reads_back_what_it_says_and_nothing_else() -> None:
    for at in (datetime(2026, 11, 22, 5, 6, 7, 999_999, tzinfo=UTC), None):
        cursor = Cursor(UUID(int=5), at, skip=3, fine=8)
        assert Cursor.parse(str(cursor)) == cursor
    for wrong in ("", "a.b.c.d", f"{UUID(int=5)}..-1.1", f"{UUID(int=5)}.9{'9' * 30}.0.1", "٣" * 9):
        with pytest.raises(LogQueryRefused):
            Cursor.parse(wrong)
