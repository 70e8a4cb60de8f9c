"""What results mean for their effects."""

from __future__ import annotations

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Effect, InDoubt, Later, SlowDown
from circuit_script.effects.due import Due, Group
from circuit_script.effects.results import LONGEST_WISH, Rule, judge


@pytest.mark.parametrize(("wish", "seconds"), [(30, 30.0), (30.0, 30.0), (10**400, LONGEST_WISH)])
def test_a_wish_is_told_in_seconds_of_one_kind_as_an_array_has_one_type(wish: float, seconds: float) -> None:
    effect = Effect(uuid7(), "acme", "post", "alerts", "c1", {})
    due = Due(effect, Group("acme", "vendor", "post", "alerts"), 1, 1)
    rule = Rule(InDoubt.REPEAT, attempts=3, backoff=0.1)

    later, slow = judge(due, Later("busy", wish), rule), judge(due, SlowDown("429", wish), rule)

    assert slow.asked is not None
    assert (later.wait, slow.asked.seconds) == (seconds, seconds)
    assert {type(later.wait), type(slow.asked.seconds)} == {float}
