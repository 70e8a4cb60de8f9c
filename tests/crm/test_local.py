"""The built-in CRM keeps the promises of every CRM. Its writes go through an outcome; here each bulk has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from psycopg.types.json import Jsonb

from circuit_script.clock import now, uuid7
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    Fields,
    InDoubt,
    Later,
    Operation,
    Refused,
)
from circuit_script.connectors.local import LocalCRM
from circuit_script.effects.settle import Settlement, Settler
from circuit_script.effects.unit import UnitOfWork
from tests.crm.conformance import Conformance, How, Kind
from tests.road import Road, open_road


class Local(LocalCRM):
    """An outcome for each bulk. The id of a new record is made here, by which the same effect makes one record."""

    name = "local"
    objects = frozenset({"Contact"})
    operations: Mapping[str, Operation] = {
        each: Operation(InDoubt.REPEAT, bulk=500, makes_ids=each in ("insert", "upsert"), irreversible=each == "delete")
        for each in ("insert", "update", "upsert", "delete")
    }

    def __init__(self, road: Road) -> None:
        super().__init__(road.pool)
        self._settler = Settler(road.pool, uuid7())

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        unit, tenant, object_ = UnitOfWork("", ()), effects[0].tenant, effects[0].target
        there = await self.get(tenant, object_, [each.payload["id"] for each in effects])
        results: list[Delivery] = []
        for effect, row in zip(effects, there, strict=True):
            if row is None and operation in ("update", "delete"):  # as the broker says
                results.append(Refused(f"there is no record {effect.payload['id']}"))
                continue
            fields = {**effect.payload.get("fields", {}), "id": effect.payload["id"]}
            results += [Delivered(each) for each in unit.write(operation, object_, [fields], None)]
        settlement = Settlement(
            execution=uuid7(), tenant=tenant, release=1, handler=1, object="", event="GET /", records=0,
            status="succeeded", started_at=now(), usage={}, writes=unit.writes,
        )  # fmt: skip
        await self._settler.settle(settlement)
        return results

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        return None


class LocalHarness:
    tenant = "acme"
    object = "Contact"

    def __init__(self, road: Road) -> None:
        self.road = road
        self.connector = Local(road)

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        ids = [str(uuid7()) for _ in rows]
        for id_, row in zip(ids, rows, strict=True):
            await self.road.run(
                "INSERT INTO circuit.records (tenant, object, id, data) VALUES ('acme', 'Contact', %s, %s)",
                id_, Jsonb(row),
            )  # fmt: skip
        return ids

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        rows = await self.road.rows(
            "SELECT id, data FROM circuit.records WHERE object = 'Contact' AND id = ANY(%s) AND NOT deleted", list(ids)
        )
        found = {id_: {**data, "id": id_} for id_, data in rows}
        return [found.get(each) for each in ids]

    def fail_next(self, how: How, times: int = 1) -> None:
        pytest.skip("nobody stands between it and us")

    def calls(self) -> int:
        return 0

    def field(self, kind: Kind) -> str | None:
        return {"text": "firstName", "number": "score", "moment": "seenAt", "flag": "dnd"}[kind]


@pytest.fixture
async def crm(database: str) -> AsyncIterator[LocalHarness]:
    async with open_road(database) as road:
        yield LocalHarness(road)


class TestLocal(Conformance):
    pass
