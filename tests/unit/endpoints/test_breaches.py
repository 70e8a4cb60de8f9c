"""What an endpoint tells when it crossed a limit, and what is kept of it."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from circuit_script.endpoints.conclude import conclude
from circuit_script.endpoints.reply import Caller, Reply
from circuit_script.execution.outcome import Breached, Failed
from circuit_script.governor import Usage


class Nobody(Caller):
    """A caller who hears nothing."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("breach", "deadline", "status", "page", "said", "reason"),
    [
        (
            Breached("loop", 6, 5, Usage(), detail="the stack", said="GET a came round again", where="app.py:3"),
            None,
            500,
            "loop-found",
            "The endpoint went round in circles. Nothing was committed.",
            "loop found: GET a came round again, at app.py:3",
        ),
        (
            Breached("callouts", 51, 50, Usage(), detail="the stack", where="app.py:3"),
            None,
            500,
            "limit-exceeded",
            "The endpoint crossed its limit callouts. Nothing was committed.",
            "limit callouts exceeded: 51 of 50, at app.py:3",
        ),
        (
            Breached("wall_time", 3.1, 3, Usage(), detail="the stack", where="app.py:3"),
            3.0,
            504,
            "deadline",
            "The endpoint did not answer in its time. Nothing was committed.",
            "deadline exceeded: 3.10 s of 3.00 s, at app.py:3",
        ),
    ],
)
def test_the_caller_is_told_the_kind_and_the_log_keeps_line_and_stack(
    breach: Breached, deadline: float | None, status: int, page: str, said: str, reason: str
) -> None:
    found = conclude(breach, Reply(Nobody(), "id", may_stream=True), "id", deadline=deadline, away=None)

    told = json.loads(found.answer.body)
    assert (found.answer.status, told["detail"]) == (status, said)
    assert told["type"].endswith(f"/problems/{page}")
    assert "app.py" not in found.answer.body.decode(), "a caller need not know our files"
    assert (found.status, found.reason, found.detail, found.effects) == ("breached", reason, "the stack", False)


@pytest.mark.parametrize("away", ["database", "vendor"])
def test_who_is_away_is_named_and_nothing_is_recorded(away: Literal["database", "vendor"]) -> None:
    failed = Failed("RequestRefused: it could not be read", Usage())
    found = conclude(failed, Reply(Nobody(), "id", may_stream=True), "id", deadline=None, away=away)

    told = json.loads(found.answer.body)
    assert (found.answer.status, found.lost) == (503, True)
    assert told["reason"] == f"{away}-unavailable"
    assert ("CRM" in told["detail"]) is (away == "vendor")
    assert ("retry-after", "1") in found.answer.headers
