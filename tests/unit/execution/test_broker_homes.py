"""What a handler may ask of objects that live outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Fields, InDoubt, Operation, Page, Plan, Query
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.outcome import Work
from circuit_script.governor import Limits
from tests.unit.execution.test_broker import Kept


class Nobody:
    """A CRM that is asked nothing: a read for each update would cost as much as the update."""

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        raise AssertionError("nobody asked for that")

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        raise AssertionError("nobody asked for that")

    def explain(self, query: Query) -> Plan:
        return Plan("nobody", ())


class Bench:
    def __init__(self, client: httpx.AsyncClient, operations: Mapping[str, Operation]) -> None:
        self.unit = UnitOfWork("Contact", ["a"])
        self.broker = ExecutionBroker(
            Work(
                execution=uuid7(), handler="h", tenant="acme", object="Contact", event="afterInsert",
                records=[{"id": "a"}], old=[None], events=[{}], limits=Limits(),
            ),
            BrokerParts(
                crm=Nobody(), client=client, knows=lambda connector, target: False,
                declared=lambda connector, operation: operations.get(operation) if connector == "crm" else None,
                home=lambda tenant, object_: "crm" if (tenant, object_) == ("acme", "Contact") else "local",
            ),
            held=self.unit, journal=Kept("a"), log=lambda line: None, remaining=lambda: 30.0,
        )  # fmt: skip

    async def dml(self, op: str, *rows: Fields, **more: Any) -> Any:
        return await self.broker.request("dml", {"op": op, "object": "Contact", "rows": list(rows), **more})


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with httpx.AsyncClient() as client:
        known = Operation(InDoubt.REPEAT)
        yield Bench(client, {"insert": Operation(InDoubt.LOOK_UP, makes_ids=True), "update": known, "upsert": known})


async def test_whether_a_record_is_there_only_its_vendor_knows(bench: Bench) -> None:
    assert await bench.dml("update", {"id": "unseen", "a": 1}) == {"ids": ["unseen"]}
    assert [(each.op, each.id, each.fields) for each in bench.unit.writes] == [("update", "unseen", {"a": 1})]


async def test_an_insert_leaves_the_id_to_its_vendor(bench: Bench) -> None:
    with pytest.raises(RequestRefused, match="crm, which makes the ids of its records"):
        await bench.dml("insert", {"id": "mine", "a": 1})
    (made,) = (await bench.dml("insert", {"a": 1}))["ids"]
    assert bench.unit.writes[-1].id == made
    assert bench.unit.writes[-1].fresh


async def test_what_a_vendor_cannot_do_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(RequestRefused, match="delete Contact: crm cannot do that"):
        await bench.dml("delete", {"id": "a"})
    with pytest.raises(RequestRefused, match="crm, which knows no versions"):
        await bench.dml("update", {"id": "a", "n": 1}, versions={"a": 7})
    assert bench.unit.writes == []


async def test_who_knows_versions_is_told_them() -> None:
    async with httpx.AsyncClient() as client:
        bench = Bench(client, {"update": Operation(InDoubt.REPEAT, if_version=True)})
        await bench.dml("update", {"id": "a", "n": 1}, versions={"a": 7})
    assert bench.unit.writes[0].if_version == 7
