"""The conformance suite proves itself on a vendor of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Fields, Later
from circuit_script.connectors.parts import Parts
from circuit_script.errors import NotConnected
from tests.crm.conformance import Conformance, How, Kind, deliver, effect_of
from tests.crm.toy import Toy, make
from tests.crm.toy_vendor import ToyVendor


class Keys:
    """Secrets in memory."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def get(self, tenant: str, name: str) -> str:
        return self.key

    async def put(self, tenant: str, name: str, value: str) -> None:
        self.key = value


class ToyHarness:
    tenant = "acme"
    object = "Contact"
    bad = ({"bad": 1}, "bad")
    wait = 2.0

    def __init__(self, vendor: ToyVendor, connector: Toy) -> None:
        self.vendor = vendor
        self.connector = connector

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        return [self.vendor.make(self.object, row) for row in rows]

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        rows = [self.vendor.of(self.object).get(each) for each in ids]
        return [None if row is None else {**row, "id": id_} for id_, row in zip(ids, rows, strict=True)]

    def fail_next(self, how: How, times: int = 1) -> None:
        self.vendor.mishaps += [how] * times

    def calls(self) -> int:
        return len(self.vendor.requests)

    def field(self, kind: Kind) -> str | None:
        return {"text": "firstName", "number": "score", "moment": "seenAt", "flag": "dnd"}[kind]


@pytest.fixture
async def vendor() -> AsyncIterator[ToyVendor]:
    async with ToyVendor().serving() as serving:
        yield serving


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def parts(vendor: ToyVendor, client: httpx.AsyncClient) -> Parts:
    return Parts(ConnectorSettings(url=vendor.url), client, Keys(vendor.key), accounts={"acme": ("A-1",)})


@pytest.fixture
def crm(vendor: ToyVendor, parts: Parts) -> ToyHarness:
    return ToyHarness(vendor, make(parts))


class TestToy(Conformance):
    pass


async def test_a_tenant_that_is_not_connected_reads_nothing_and_its_writes_wait(
    crm: ToyHarness, vendor: ToyVendor
) -> None:
    crm.tenant = "other"
    with pytest.raises(NotConnected, match="circuit-script connect toy --tenant other"):
        await crm.connector.get("other", "Contact", ["T-1"])
    (result,) = await deliver(crm, "update", [effect_of(crm, "update", {"id": "T-1", "fields": {}})])
    assert isinstance(result, Later)
    assert result.down
    assert vendor.requests == []


async def test_a_token_that_was_changed_meanwhile_is_fetched_and_never_told(
    crm: ToyHarness, parts: Parts, vendor: ToyVendor
) -> None:
    (id_,) = await crm.seed([{"firstName": "a"}])
    old, vendor.key = vendor.key, "toy-secret-key-2"
    (refused,) = await deliver(crm, "update", [effect_of(crm, "update", {"id": id_, "fields": {"firstName": "b"}})])
    assert isinstance(refused, Later)
    assert "HTTP 401" in refused.reason
    assert old not in refused.reason  # though the vendor repeats it

    assert parts.secrets is not None
    await parts.secrets.put("acme", "toy.key", vendor.key)
    assert (await crm.connector.get("acme", "Contact", [id_]))[0] == {"id": id_, "firstName": "a"}
