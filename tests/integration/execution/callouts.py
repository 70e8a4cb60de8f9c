"""A broker with the real callouts, for children whose libraries speak to real servers on this host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Fields, Page, Plan, Query
from circuit_script.effects.unit import UnitOfWork
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.outcome import Work
from circuit_script.governor import Limits
from circuit_script.telemetry.spans import Recorder


class NoRecords:
    """A CRM without any."""

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        return Page([], None)

    def explain(self, query: Query) -> Plan:
        return Plan("nobody", ())

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return [None] * len(ids)


class NoJournal:
    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return None

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        """Nothing is tried again."""


class Broker(ExecutionBroker):
    """The real one, which remembers what it was asked and what was logged."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        egress: tuple[str, ...] | None = None,
        private: Sequence[str] = ("127.0.0.1",),
        parts: CalloutParts | None = None,
        remaining: float = 10.0,
        traced: bool = False,
        **limits: Any,
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        work = Work(
            execution=uuid7(),
            handler="h",
            tenant="acme",
            object="Contact",
            event="afterInsert",
            records=[{"id": "1"}],
            old=[None],
            events=[{}],
            limits=Limits(**limits),
            egress=egress,
        )
        super().__init__(
            work,
            BrokerParts(
                crm=NoRecords(),
                client=client,
                knows=lambda connector, target: False,
                callouts=parts or CalloutParts(guard=Guard(private=Private.of(private)), attempts=1),
            ),
            held=UnitOfWork("Contact", ["1"]),
            journal=NoJournal(),
            log=self.lines.append,
            remaining=lambda: remaining,
            recorder=Recorder(work.execution) if traced else None,
        )

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        self.asked.append((verb, arguments))
        return await super().request(verb, arguments)

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]
