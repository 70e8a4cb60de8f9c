"""Tokens that the vendor gives no more, and tokens that come from two sides at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

from circuit_script.connectors.gohighlevel.oauth import GoHighLevelGrants, tokens_of
from circuit_script.connectors.tokens import AGENCY, Connections, Disconnected, Kind, list_connections
from circuit_script.db.pool import Pool, open_pool
from circuit_script.secrets.cipher import Cipher
from circuit_script.testing.stand_ins.gohighlevel import COMPANY, running
from circuit_script.testing.stand_ins.gohighlevel.access import Grant
from tests.crm.stage import MemorySecrets

CIPHER = Cipher([b"k" * 32])


class Town:
    """A vendor, a database, and what was asked at the vendor's door."""

    def __init__(self, vendor, pool: Pool, client: httpx.AsyncClient) -> None:
        secrets = MemorySecrets(
            gohighlevel__client_id=vendor.tokens.client_id, gohighlevel__client_secret=vendor.tokens.client_secret
        )
        self.vendor, self.pool, self.client = vendor, pool, client
        self.asked: list[str] = []
        client.event_hooks["request"].append(self._note)
        self.held = Connections(
            pool,
            CIPHER,
            GoHighLevelGrants(client, secrets, base_url=vendor.url),
            secrets=secrets,
            account_of=lambda tenant: vendor.location,
        )

    async def _note(self, request: httpx.Request) -> None:
        self.asked.append(request.url.path)

    async def connect(self, tenant: str, kind: Kind) -> None:
        grant = Grant(COMPANY if kind == "agency" else self.vendor.location, kind == "agency")
        await self.held.put(tenant, tokens_of(self.vendor.tokens.issue(grant), self.vendor.url), kind)

    async def ends_in(self, seconds: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(
                b"UPDATE circuit.connections SET expires_at = clock_timestamp() + make_interval(secs => %s),"
                b" refreshed_at = clock_timestamp() - interval '1 day'",
                [seconds],
            )


@pytest.fixture
async def town(database) -> AsyncIterator[Town]:
    with running() as vendor:
        async with (
            await open_pool(database, min_size=1, max_size=4, name="test") as pool,
            httpx.AsyncClient() as client,
        ):
            yield Town(vendor, pool, client)


@pytest.mark.parametrize("left", [0, 100], ids=["over", "near its end"])
async def test_a_vendor_that_has_said_no_is_not_asked_with_every_request(town: Town, left: float) -> None:
    await town.connect("acme", "oauth")
    await town.ends_in(left)
    town.vendor.tokens.refresh.clear()
    for _ in range(5):
        with suppress(Disconnected):
            await town.held.of("acme")
    assert town.asked == ["/oauth/token"]
    await town.connect("acme", "oauth")  # and is asked again when somebody has connected
    await town.ends_in(left)
    await town.held.of("acme")
    assert town.asked == ["/oauth/token"] * 2
    assert town.vendor.tokens.refreshes == 1


async def test_who_connects_while_the_agency_is_asked_keeps_the_refresh_token(town: Town) -> None:
    await town.connect(AGENCY, "agency")

    async def meanwhile(response: httpx.Response) -> None:
        if response.request.url.path == "/oauth/locationToken":
            await town.connect("acme", "oauth")

    town.client.event_hooks["response"].append(meanwhile)
    await town.held.of("acme")
    async with town.pool.connection() as connection:
        kinds = {each.tenant: each.kind for each in await list_connections(connection)}
    assert kinds["acme"] == "oauth"
