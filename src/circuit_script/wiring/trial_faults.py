"""Accidents of a trial: what its author wants to fail, and how often still."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from circuit_script.connectors.connector import CRM, Fields, Page, Plan, Query
from circuit_script.errors import DatabaseUnavailable, TrialRefused

CALLOUT, MODEL, QUERY, COMMIT, WORKER = "callout", "model", "query", "commit", "worker"
KINDS = {
    CALLOUT: "a callout leaves, and its connection breaks",
    MODEL: "a model's provider cannot be reached",
    QUERY: "the CRM cannot be read",
    COMMIT: "the database does not take an outcome: what it brought is not stored, and it runs again",
    WORKER: "the worker is killed when a handler has run, and nothing of it is committed: it runs again elsewhere",
}


@dataclass(slots=True)
class Fault:
    """One kind of accident. ``happened`` counts them; ``left`` are those to come."""

    kind: str
    left: int
    happened: int = 0


@dataclass(slots=True)
class Faults:
    """What shall fail in one trial. ``providers`` are the addresses of models."""

    providers: Collection[str] = ()
    armed: list[Fault] = field(default_factory=list)

    def arm(self, kind: str, times: int) -> Fault:
        """Let the next ``times`` of this kind fail. Raises TrialRefused."""
        if kind not in KINDS:
            near = get_close_matches(kind, KINDS, n=1)
            cure = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(KINDS)}."
            raise TrialRefused(f"Nothing is called {kind!r} that could fail.", cure=cure)
        if times < 1:
            raise TrialRefused(f"It cannot fail {times} times.", cure="Leave times out: once.")
        fault = Fault(kind, times)
        self.armed.append(fault)
        return fault

    def disarm(self, fault: Fault) -> None:
        """It happens no more."""
        self.armed = [each for each in self.armed if each is not fault]

    def strikes(self, *kinds: str) -> str:
        """Which of these happens now; empty for none. It counts as happened."""
        for fault in reversed(self.armed):
            if fault.kind in kinds and fault.left:
                fault.left -= 1
                fault.happened += 1
                return fault.kind
        return ""

    def breaks(self, url: str) -> str:
        """Which of "callout" and "model" it is when this request fails; else empty."""
        models = any(url.startswith(each) for each in self.providers)
        return self.strikes(MODEL if models else CALLOUT)


@dataclass(frozen=True, slots=True)
class FaultyCRM:
    """A CRM that cannot be read when a fault says so."""

    crm: CRM
    faults: Faults

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self._ask()
        return await self.crm.page(tenant, query, after, size)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        self._ask()
        return await self.crm.get(tenant, object_, ids)

    def explain(self, query: Query) -> Plan:
        return self.crm.explain(query)

    def _ask(self) -> None:
        if self.faults.strikes(QUERY):
            raise DatabaseUnavailable('circuit.fail("query"): this test wants it so.')
