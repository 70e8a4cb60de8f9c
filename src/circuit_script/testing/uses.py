"""What the tests used of each handler's limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuit_script.wiring.trial_result import TrialResult  # with it comes every part of a worker

NEAR = 0.8  # of a limit: more of it refuses a deploy


def current_test() -> str:
    """The test that runs: "tests/test_leads.py::test_a_lead"."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]


@dataclass(slots=True)
class HandlerUse:
    """How the tests used one handler: how often it ran, and the most that one execution used of each limit.

    ``nearest`` has by limit the execution that came nearest to it: ``used``, ``ceiling``, ``share`` and ``test``. One
    that crossed a limit does not count: what becomes of that is for its test to say.
    """

    runs: int = 0
    records: int = 0
    usage: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    nearest: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, result: TrialResult, test: str = "") -> None:
        self.runs += sum(batch.status != "held" for batch in result.batches)
        self.records += len(result.records) - len(result.held)
        _widen(self.usage, result.usage)
        _widen(self.ceilings, result.ceilings)
        self.approach(result, test)

    def approach(self, result: TrialResult, test: str) -> None:
        """See how near to its limits each execution came, without counting it."""
        for batch in result.batches:
            for name, ceiling in batch.ceilings.items() if batch.status != "breached" else ():
                used = batch.usage.get(name, 0)
                share = used / ceiling if ceiling else 0.0
                if share > self.nearest.get(name, {"share": 0.0})["share"]:
                    self.nearest[name] = {"used": used, "ceiling": ceiling, "share": share, "test": test}


def _widen(known: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        known[name] = max(value, known.get(name, 0))
