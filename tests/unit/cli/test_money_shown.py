"""What `status` and `limits` say of money and of loops."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from circuit_script.cli import limits_shown, spend, status
from circuit_script.cli.limits import LimitLine, Look
from circuit_script.clock import now, uuid7
from circuit_script.governor import Limits, amount
from circuit_script.governor.spending import Unsettled

AT = "2026-01-31T00:02:00+00:00"
EMPTY = {
    **dict.fromkeys(("received", "unassigned", "refused", "events", "unrouted", "queue_depth", "dead_letters"), 0),
    **dict.fromkeys(("effects_pending", "delay_p50_ms", "delay_p95_ms", "live")),
    **{name: [] for name in ("refusals", "workers", "errors", "dead", "put_off")},
    "effects_pending": 0,
    "executions": {},
}


def test_status_says_how_many_wait_until_when_and_why() -> None:
    row = {
        "tenant": "acme",
        "handler": "asks",
        "n": 1200,
        "first": AT,
        "last": AT,
        "reason": "no money: $1.00 is spent",
    }
    seen = io.StringIO()
    out = Console(file=seen, width=200)
    status.show(out, {**EMPTY, "put_off": [row]})
    for word in ("wait for money or a quota", "1,200", "acme", "asks", "02:00", "no money: $1.00 is spent"):
        assert word in seen.getvalue()
    seen.truncate(0)
    status.show(out, EMPTY)
    assert "wait for money" not in seen.getvalue()


@pytest.mark.parametrize(
    ("value", "said"), [(1.0, "$1.00"), (0.000042, "$0.000042"), (0.1 + 0.2, "$0.30"), (1234.5, "$1,234.50")]
)
def test_dollars_of_a_limit_are_exact(value: float, said: str) -> None:
    assert amount("llm_cost", value) == said


def test_of_a_chain_nobody_is_told_to_raise_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [LimitLine("h", name, 10, 5, 9, 9) for name in ("depth", "callouts")]
    limits_shown.show(Look(lines, (), defaults=Limits().as_dict()), 7, everything=True)
    said = capsys.readouterr().out
    assert "h used 90% of depth: does what it writes begin it again?" in said
    assert "h used 90% of callouts: raise it, or use less." in said


def test_calls_that_are_not_listed_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    call = Unsettled(uuid7(), now(), "unknown", "acme", "h", uuid7(), "openai", "big", 10**7, "cut off", 5.0)
    spend._show_waiting([call], more=True)
    assert "there are more" in capsys.readouterr().out
    spend._show_waiting([call], more=False)
    assert "there are more" not in capsys.readouterr().out
