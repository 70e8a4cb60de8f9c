"""How much may be told."""

from __future__ import annotations

import pytest

from circuit_script.telemetry.at_most import AtMost


def test_some_come_at_once_and_then_as_many_as_time_gives_back() -> None:
    now = [100.0]
    most = AtMost(2.0, 3, lambda: now[0])
    assert [most.may() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 0.25
    assert not most.may(), "half a turn is none"
    now[0] += 0.25
    assert [most.may(), most.may()] == [True, False]
    now[0] += 3600
    assert [most.may() for _ in range(5)].count(True) == 3, "rest is not saved up without end"


@pytest.mark.parametrize("seconds", [0.0, 86_400.0])
def test_none_is_none(seconds: float) -> None:
    now = [0.0]
    most = AtMost(0.0, 0.0, lambda: now[0])
    now[0] = seconds
    assert not most.may()
