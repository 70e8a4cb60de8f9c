"""What `circuit-script invoke` says of records that are held."""

from __future__ import annotations

import pytest

from circuit_script.cli.invoke import _document, _show
from circuit_script.clock import uuid7
from circuit_script.testing.session import HandlerUse
from circuit_script.wiring.trial_result import TrialBatch, TrialResult

WHY = "quarantined: override in notes: It tells a model to ignore its instructions."


def batch(record: str, status: str, reason: str = "") -> TrialBatch:
    errors = {record: reason} if reason else {}
    return TrialBatch(uuid7(), (record,), status, 0.1, {}, {}, reason=reason, errors=errors)


def result(*batches: TrialBatch) -> TrialResult:
    return TrialResult("greet", "Contact", "afterInsert", "default", batches)


def test_it_is_told_as_held_and_why_and_not_as_failed(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(batch("c2", "held", WHY), batch("c1", "succeeded"), batch("c3", "failed", "boom"))
    _show(found, True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "c2 held quarantined: override in notes" in shown
    assert "c3 failed boom" in shown
    assert _document(found)["held"] == {"c2": WHY}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("held",), "held"),
        (("held", "succeeded"), "partial"),
        (("held", "failed"), "failed"),
        (("held", "breached", "deferred"), "breached"),
    ],
)
def test_a_run_in_which_something_is_held_is_as_grave_as_its_gravest_part(
    statuses: tuple[str, ...], expected: str
) -> None:
    assert result(*(batch(f"c{n}", status) for n, status in enumerate(statuses))).status == expected


def test_what_no_handler_saw_is_no_run_of_it() -> None:
    use = HandlerUse()
    use.add(result(batch("c2", "held", WHY), batch("c1", "succeeded")))
    assert (use.runs, use.records) == (1, 1)
