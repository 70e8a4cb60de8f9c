from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.clock import uuid7
from circuit_script.telemetry.w3c import read_traceparent, span_id, traceparent

TRACE = UUID(hex="4bf92f3577b34da6a3ce929d0e0e4736")
GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_header_tells_trace_parent_and_whether_others_keep_it() -> None:
    read = read_traceparent(GOOD)
    assert read is not None
    assert (read.trace, read.parent, read.sampled) == (TRACE, "00f067aa0ba902b7", True)
    unsampled = read_traceparent(GOOD[:-2] + "02")
    assert unsampled is not None
    assert not unsampled.sampled


def test_a_later_version_may_say_more_but_the_first_one_may_not() -> None:
    assert read_traceparent("cc" + GOOD[2:] + "-what-the-future-will-be-like") is not None
    assert read_traceparent(GOOD + "-more") is None


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "ff" + GOOD[2:],
        GOOD.upper(),
        GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
        GOOD[:-1],
        GOOD + ".",
        f"{GOOD}, {GOOD}",  # sent twice
        GOOD.replace("4", "\N{ARABIC-INDIC DIGIT FOUR}"),
        GOOD + "\n",
        GOOD + "\0",
        "cc" + GOOD[2:] + "-" + "x" * 1_000_000,
    ],
)
def test_what_is_no_header_begins_a_new_trace(said: str | None) -> None:
    assert read_traceparent(said) is None


@given(st.text(max_size=80))
def test_no_text_is_too_strange_to_be_read(said: str) -> None:
    read_traceparent(said)


@given(st.uuids(), st.integers(-500, 500))
def test_what_is_written_is_read(trace: UUID, number: int) -> None:
    owner = uuid7()
    if trace.int:
        read = read_traceparent(traceparent(trace, span_id(owner, number)))
        assert read is not None
        assert read.trace == trace


def test_spans_of_one_execution_have_different_ids() -> None:
    owner = uuid7()
    assert len({span_id(owner, number) for number in range(-500, 501)}) == 1001
    assert span_id(owner) == owner.hex[16:]
