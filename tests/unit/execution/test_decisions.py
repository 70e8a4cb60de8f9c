from __future__ import annotations

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from circuit_script import Cancel, Retry
from circuit_script.execution.decisions import decision_of
from circuit_script.execution.outcome import LONGEST_RETRY, bounded


def test_a_retry_takes_seconds_or_a_timedelta() -> None:
    assert Retry(after=90).after == 90.0
    assert Retry(after=timedelta(minutes=2)).after == 120.0
    assert Retry(0).after == 0.0
    assert Retry(timedelta(days=30)).after == LONGEST_RETRY


@pytest.mark.parametrize("after", [-1, LONGEST_RETRY + 1, timedelta(days=31), inf, nan, "60", None, True])
def test_a_time_that_no_retry_may_have_is_refused_where_it_is_written(after: Any) -> None:
    with pytest.raises(ValueError, match="give seconds from 0 to 2,592,000"):
        Retry(after=after)


def test_a_decision_without_a_reason_has_one_that_says_who_decided() -> None:
    assert Retry(after=90).reason == str(Retry(after=90)) == "the handler asked to be called again after 90 s"
    assert Cancel().reason == "the handler cancelled it"
    assert (Retry(5, "busy").reason, Cancel("unsubscribed").reason) == ("busy", "unsubscribed")
    assert Cancel("unsubscribed").after is None


@pytest.mark.parametrize("answer", [None, 1, "text", [], [1], {"a": 1}, (), ValueError("x"), ValueError, int])
def test_what_else_a_handler_returns_decides_nothing(answer: Any) -> None:
    assert decision_of(answer) is None


def test_the_class_cancel_is_a_cancel_and_a_retry_needs_its_time() -> None:
    retry = Retry(3)
    assert decision_of(retry) is retry
    assert isinstance(decision_of(Cancel), Cancel)
    with pytest.raises(TypeError, match=r"return Retry\(after=60\)"):
        decision_of(Retry)


@pytest.mark.parametrize("answer", [[Retry(3)], (1, Cancel), {Cancel}, {"id": Retry(1)}])
def test_decisions_in_a_container_are_refused_instead_of_lost(answer: Any) -> None:
    with pytest.raises(TypeError, match="decides nothing"):
        decision_of(answer)


def test_what_a_child_says_of_a_delay_is_held_within_its_bounds() -> None:
    assert [bounded(each) for each in (5.0, -1.0, 1e12, nan, None)] == [5.0, 0.0, LONGEST_RETRY, 0.0, None]
