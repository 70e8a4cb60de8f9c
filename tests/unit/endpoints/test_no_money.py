"""A call whose model call was put off for want of money is told when to come back."""

from __future__ import annotations

import pytest

from circuit_script.endpoints.conclude import Conclusion, conclude
from circuit_script.endpoints.reply import Reply
from circuit_script.execution.outcome import Failed, Outcome, Succeeded
from circuit_script.execution.protocol import Head
from circuit_script.governor import Usage
from tests.unit.endpoints.test_reply import Caller


def concluded(outcome: Outcome, deferred: float | None, status: int | None = None) -> Conclusion:
    reply = Reply(Caller(), "e1", may_stream=True)  # type: ignore[arg-type]  # it hears of no hang-up
    if status is not None:
        reply.on_head(Head(status, []))
    return conclude(outcome, reply, "e1", deadline=None, away=None, deferred=deferred)


OUT = Failed("BudgetExceeded: The money for model calls is used up. …", Usage())


def test_it_is_429_with_the_seconds_and_nothing_counts() -> None:
    found = concluded(OUT, 3600.2)
    assert found.answer.status == 429
    assert dict(found.answer.headers)["retry-after"] == "3601"
    assert b"budget-exceeded" in found.answer.body
    assert (found.status, found.effects, found.repeatable, found.lost) == ("failed", False, False, False)


def test_who_coped_with_it_is_answered_as_he_likes() -> None:
    found = concluded(Succeeded(Usage()), 3600.0, 200)
    assert (found.answer.status, found.effects) == (200, True)
    assert concluded(Succeeded(Usage()), 3600.0, 404).answer.status == 404
    assert concluded(Failed("other", Usage()), None).answer.status == 500
    assert concluded(OUT, None).answer.status == 500, "it will not be let through later either"


@pytest.mark.parametrize(
    ("outcome", "status"), [(Failed("KeyError: 'name'", Usage()), None), (Succeeded(Usage(), discard=True), 500)]
)
def test_a_bug_after_a_call_that_was_put_off_is_a_bug(outcome: Outcome, status: int | None) -> None:
    found = concluded(outcome, 3600.0, status)
    assert (found.answer.status, found.status) == (500, "failed")
    assert b"budget" not in found.answer.body
