import asyncio
import subprocess
import sys

import httpx
import pytest

from circuit_script.connectors.connector import Delivered, Later
from circuit_script.connectors.gohighlevel import connect
from circuit_script.connectors.gohighlevel.oauth import GoHighLevelGrants, tokens_of
from circuit_script.connectors.query import Query
from circuit_script.connectors.tokens import AGENCY, Connections, Disconnected, list_connections
from circuit_script.db.pool import open_pool
from circuit_script.errors import NotConnected
from circuit_script.secrets.cipher import Cipher
from circuit_script.testing.stand_ins.gohighlevel import COMPANY, running
from circuit_script.testing.stand_ins.gohighlevel.access import Grant
from tests.crm.stage import MemorySecrets, effect

KEY = b"k" * 32


class Stage:
    def __init__(self, vendor, pool, client):
        self.vendor = vendor
        self.pool = pool
        self.secrets = MemorySecrets(
            gohighlevel__client_id=vendor.tokens.client_id, gohighlevel__client_secret=vendor.tokens.client_secret
        )
        self.grants = GoHighLevelGrants(client, self.secrets, base_url=vendor.url)
        self.client = client

    def worker(self):
        """A worker of its own: it remembers nothing of what others did."""
        return Connections(
            self.pool, Cipher([KEY]), self.grants, secrets=self.secrets, account_of=lambda tenant: self.vendor.location
        )

    async def connected(self, *, company=False):
        account = COMPANY if company else self.vendor.location
        tokens = tokens_of(self.vendor.tokens.issue(Grant(account, company)), self.vendor.url)
        await self.worker().put(AGENCY if company else "acme", tokens, "agency" if company else "oauth")

    async def known(self):
        async with self.pool.connection() as connection:
            return await list_connections(connection)

    async def ends_in(self, seconds):
        async with self.pool.connection() as connection:
            await connection.execute(
                b"UPDATE circuit.connections SET expires_at = clock_timestamp() + make_interval(secs => %s),"
                b" refreshed_at = clock_timestamp() - interval '1 day'",
                [seconds],
            )


@pytest.fixture
async def stage(database):
    with running() as vendor:
        async with (
            await open_pool(database, min_size=1, max_size=4, name="test") as pool,
            httpx.AsyncClient() as client,
        ):
            yield Stage(vendor, pool, client)
        assert vendor.violations == []


async def test_tokens_are_sealed_and_open_an_account(stage):
    await stage.connected()
    (issued,) = [token for token, grant in stage.vendor.tokens.grants.items() if grant.until]
    async with stage.pool.connection() as connection:
        row = await (await connection.execute(b"SELECT c::text FROM circuit.connections c")).fetchone()
    assert issued not in row[0]
    assert issued.encode().hex() not in row[0]
    access = await stage.worker().of("acme")
    assert access.account == stage.vendor.location
    assert issued not in repr(access)
    assert await connect(stage.client, stage.worker()).page("acme", Query("Contact"))


async def test_a_token_near_its_end_is_refreshed_and_both_are_stored(stage):
    await stage.connected()
    await stage.ends_in(100)
    before = await stage.worker().of("acme")
    after = await stage.worker().of("acme")
    assert stage.vendor.tokens.refreshes == 1
    assert dict(before.headers) == dict(after.headers)
    await stage.ends_in(100)
    await stage.worker().of("acme")  # the new refresh token was kept, too
    assert (stage.vendor.tokens.refreshes, stage.vendor.tokens.misused) == (2, 0)


async def test_one_that_the_vendor_does_not_take_is_renewed_once_and_the_request_repeated(stage):
    await stage.connected()
    worker = stage.worker()
    connector = connect(stage.client, worker)
    await connector.page("acme", Query("Contact"))
    stage.vendor.tokens.expire()
    await connector.page("acme", Query("Contact"))
    assert stage.vendor.tokens.refreshes == 1
    stage.vendor.tokens.expire()  # again at once: it is no use to ask and ask
    (result,) = await connector.deliver("insert", [effect("insert", "Contact", {"email": "a@example.com"})])
    assert isinstance(result, Later)
    assert stage.vendor.tokens.refreshes == 1


async def test_many_who_need_it_at_once_refresh_once(stage):
    await stage.connected()
    await stage.ends_in(0)
    workers = [stage.worker() for _ in range(3)]
    found = await asyncio.gather(*(each.of("acme") for each in workers for _ in range(5)))
    assert stage.vendor.tokens.refreshes == 1
    assert stage.vendor.tokens.misused == 0
    assert len({dict(each.headers)["authorization"] for each in found}) == 1


RACER = """
import asyncio, sys
import httpx
from circuit_script.connectors.gohighlevel.oauth import GoHighLevelGrants
from circuit_script.connectors.tokens import Connections
from circuit_script.db.pool import open_pool
from circuit_script.secrets.cipher import Cipher
from tests.crm.stage import MemorySecrets

async def main(database, url, client_id, client_secret):
    async with await open_pool(database, min_size=1, max_size=4, name="test") as pool, httpx.AsyncClient() as client:
        secrets = MemorySecrets(gohighlevel__client_id=client_id, gohighlevel__client_secret=client_secret)
        held = Connections(pool, Cipher([b"k" * 32]), GoHighLevelGrants(client, secrets, base_url=url))
        async with pool.connection() as connection:
            await connection.execute(b"SELECT 1")
        print("ready", flush=True)
        sys.stdin.readline()
        print(dict((await held.of("acme")).headers)["authorization"][-8:])

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_that_refresh_at_once_use_the_refresh_token_once(stage, database):
    await stage.connected()
    await stage.ends_in(0)
    stage.vendor.door.latency = 0.2  # so that both are there before the first has its answer
    given = [database, stage.vendor.url, stage.vendor.tokens.client_id, stage.vendor.tokens.client_secret]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for each in racers:
            assert await asyncio.to_thread(each.stdout.readline) == "ready\n"
        for each in racers:
            each.stdin.write("go\n")
            each.stdin.flush()
        said = [await asyncio.to_thread(each.communicate, None, 60) for each in racers]
    finally:
        for each in racers:
            each.kill()
            each.wait()
    assert [each.returncode for each in racers] == [0, 0]
    assert said[0][0] == said[1][0] != ""
    assert (stage.vendor.tokens.refreshes, stage.vendor.tokens.misused) == (1, 0)


async def test_who_waits_may_be_cancelled_and_what_the_vendor_gave_is_stored_all_the_same(stage):
    await stage.connected()
    await stage.ends_in(0)
    stage.vendor.door.latency = 0.2
    worker = stage.worker()
    waiting = asyncio.create_task(worker.of("acme"))
    while not worker._running:
        await asyncio.sleep(0.001)
    (refreshing,) = worker._running.values()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await refreshing
    await stage.worker().of("acme")
    assert (stage.vendor.tokens.refreshes, stage.vendor.tokens.misused) == (1, 0)


async def test_a_refresh_token_that_was_lost_says_to_connect_again(stage):
    await stage.connected()
    await stage.ends_in(0)
    stage.vendor.tokens.refresh.clear()  # somebody used it, and died before the answer was stored
    with pytest.raises(Disconnected, match="Connect again: circuit-script connect gohighlevel --tenant acme"):
        await stage.worker().of("acme")
    (known,) = await stage.known()
    assert "invalid_grant" in known.broken
    (result,) = await connect(stage.client, stage.worker()).deliver(
        "insert", [effect("insert", "Contact", {"email": "a@example.com"})]
    )
    assert isinstance(result, Later)  # writes wait until somebody has connected again
    assert result.down
    await stage.connected()
    assert (await stage.known())[0].broken is None
    assert (await stage.worker().of("acme")).account == stage.vendor.location


async def test_an_access_token_serves_to_its_end_though_it_cannot_be_refreshed(stage):
    await stage.connected()
    await stage.ends_in(100)
    stage.vendor.tokens.refresh.clear()
    assert (await stage.worker().of("acme")).account == stage.vendor.location
    assert (await stage.known())[0].broken


async def test_a_private_token_is_a_secret(stage):
    with pytest.raises(NotConnected, match="circuit-script connect gohighlevel --tenant acme"):
        await stage.worker().of("acme")
    await stage.secrets.put("acme", "gohighlevel.token", stage.vendor.token)
    worker = stage.worker()
    connector = connect(stage.client, worker)
    assert (await connector.page("acme", Query("Contact"))).rows == []
    fresh = stage.vendor.tokens.private(stage.vendor.location)
    del stage.vendor.tokens.grants[stage.vendor.token]
    await stage.secrets.put("acme", "gohighlevel.token", fresh)  # it was rotated by hand
    (result,) = await connector.deliver("insert", [effect("insert", "Contact", {"email": "a@example.com"})])
    assert isinstance(result, Delivered)


async def test_an_agency_has_tokens_of_its_locations(stage):
    stage.vendor.world.location("second", company="another")
    await stage.connected(company=True)
    worker = stage.worker()
    connector = connect(stage.client, worker)
    assert (await connector.page("acme", Query("Contact"))).rows == []
    kinds = {each.tenant: each.kind for each in await stage.known()}
    assert kinds == {"": "agency", "acme": "location"}
    await stage.ends_in(0)  # both end: the agency refreshes, the location asks it for another
    assert (await connect(stage.client, stage.worker()).page("acme", Query("Contact"))).rows == []
    assert stage.vendor.tokens.refreshes == 1
    elsewhere = Connections(stage.pool, Cipher([KEY]), stage.grants, account_of=lambda tenant: "second")
    with pytest.raises(NotConnected):
        await elsewhere.of("birch")


async def test_a_cipher_without_the_key_opens_nothing(stage):
    await stage.connected()
    other = Connections(stage.pool, Cipher([b"x" * 32]), stage.grants)
    with pytest.raises(Exception, match="sealed with the key"):
        await other.of("acme")
