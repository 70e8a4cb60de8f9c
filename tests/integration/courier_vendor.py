"""A courier with vendors of a test: connectors that answer as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Connector, Delivered, Delivery, Effect, InDoubt, Operation
from circuit_script.effects.courier import Courier, CourierOptions
from circuit_script.tenants.pauses import Kind, Pauses, pause, resume
from tests.road import Road

PATIENCE = 30.0

Answer = Callable[[Sequence[Effect]], Sequence[Delivery] | Delivery]


class Vendor:
    """Remembers each request (the ``n`` of its effects), and answers by ``answer``; without one it does everything."""

    name = "vendor"

    def __init__(self, answer: Answer | None = None, **operation: Any) -> None:
        self.answer = answer
        self.operations: Mapping[str, Operation] = {"post": Operation(**({"in_doubt": InDoubt.REPEAT} | operation))}
        self.calls: list[list[Any]] = []
        self.effects: list[Effect] = []

    @property
    def got(self) -> list[Any]:
        return [n for call in self.calls for n in call]

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery:
        self.calls.append([each.payload["n"] for each in effects])
        self.effects += effects
        return self.answer(effects) if self.answer is not None else [Delivered() for _ in effects]


class Looking(Vendor):
    """A vendor that can be asked what became of an effect: ``found`` says it, by its ``n``."""

    def __init__(self, answer: Answer, found: Callable[[int], Any], **operation: Any) -> None:
        super().__init__(answer, in_doubt=InDoubt.LOOK_UP, **operation)
        self.found = found
        self.asked: list[int] = []

    async def look_up(self, effect: Effect) -> Any:
        self.asked.append(effect.payload["n"])
        return self.found(effect.payload["n"])


class Office:
    """Effects and couriers of one database; the worker of each courier holds the lanes that it is given."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.worker = uuid7()
        self.pauses = Pauses()

    async def hold(self) -> None:
        await self.road.run("UPDATE circuit.lanes SET owner = %s, epoch = 1", self.worker)

    async def effect(
        self,
        n: Any,
        *,
        key: int | None = None,
        tenant: str = "acme",
        target: str = "alerts",
        needs: Sequence[UUID] = (),
        **payload: Any,
    ) -> UUID:
        """A pending effect; those of one ``key`` keep their order. One that ``needs`` the ids of others is there with
        its references or not at all, as an outcome makes it: a courier that runs meanwhile never sees it without."""
        order = (n if isinstance(n, int) else 0) if key is None else key
        id_ = uuid7()
        connector, operation = payload.pop("connector", "vendor"), payload.pop("operation", "post")
        async with self.road.pool.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, "
                "target, record, payload) VALUES (%s, %s, %s, 1, %s, %s, %s, %s, %s, %s, %s)",
                [id_, tenant, uuid7(), order % 64, order, connector, operation, target, f"c{order}",
                 Jsonb({"n": n, **payload})],
            )  # fmt: skip
            await connection.execute(
                "SELECT circuit.refer(%s::uuid[], %s::uuid[], '{}', '{}')", [[id_] * len(needs), list(needs)]
            )
        return id_

    @asynccontextmanager
    async def delivering(
        self,
        *connectors: Connector,
        worker: UUID | None = None,
        lanes: Collection[int] = range(64),
        **options: Any,
    ) -> AsyncIterator[Courier]:
        held = dict.fromkeys(lanes, 1)
        courier = Courier(
            database=self.road.pool,
            connectors={each.name: each for each in connectors},
            worker=worker or self.worker,
            held=lambda: held,
            options=CourierOptions(**({"attempts": 3, "backoff": 0.02, "poll": 0.02} | options)),
            paused=lambda: self.pauses,
        )
        task = asyncio.create_task(courier.run())
        try:
            yield courier
        finally:
            courier.stop()
            await asyncio.wait_for(task, PATIENCE)

    async def pause(self, kind: Kind, value: str = "", tenant: str | None = None) -> None:
        async with self.road.pool.connection() as connection:
            await pause(connection, kind, value, tenant=tenant, reason="they asked", by="ann")
            self.pauses.expire()
            await self.pauses.refresh(connection)

    async def resume(self, kind: Kind, value: str = "", tenant: str | None = None) -> None:
        async with self.road.pool.connection() as connection:
            await resume(connection, kind, value, tenant=tenant)
            self.pauses.expire()
            await self.pauses.refresh(connection)

    async def until(self, *states: str) -> None:
        await self.road.until("SELECT status FROM circuit.effects ORDER BY id", list(states))
