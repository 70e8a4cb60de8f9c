"""The dashboard before whoever sends what no browser would: strangers, other people's pages, floods, ended sessions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from circuit_script.access import Role, add_person, grant
from circuit_script.dashboard.open_pages import MOST_OF_ONE
from circuit_script.db.pool import open_connection

pytestmark = pytest.mark.story

PASSWORD = "a horse that counts its staples"
SERVE = """
import asyncio, sys
from dataclasses import dataclass
from pathlib import Path
from circuit_script.config import load_settings
from circuit_script.dashboard import open_pages
from circuit_script.dashboard.serve import run_dashboard
open_pages.EVERY = open_pages.LEAVING = 0.2
settings = load_settings(Path(sys.argv[1]), dashboard={"port": 0}, tenants={"acme": {}, "bolt": {}})
asyncio.run(run_dashboard(settings, sys.argv[2], on_ready=lambda address: print(address, flush=True)))
"""
IN, SENT_AWAY = '40{"sid"', "Implicit handshake failed"


@dataclass(frozen=True)
class Door:
    """A dashboard, and whoever has come to it; they leave at the test's end."""

    address: str
    guests: contextlib.AsyncExitStack

    async def client(self, name: str = "") -> httpx.AsyncClient:
        """A program that speaks HTTP, signed in as ``name``."""
        made = await self.guests.enter_async_context(httpx.AsyncClient(base_url=self.address, timeout=60))
        if name:
            assert (await made.post("/sign-in", data={"name": name, "password": PASSWORD})).status_code == 303
        return made

    async def socket(self, page: str, who: httpx.AsyncClient | None, *, more: str = "") -> ClientConnection:
        """A socket that has said for which page it speaks."""
        query = f"EIO=4&transport=websocket&implicit_handshake=true&tab_id=t&document_id=d&client_id={page}{more}"
        cookie = {} if who is None else {"Cookie": f"circuit_session={who.cookies['circuit_session']}"}
        url = f"{self.address.replace('http', 'ws')}/_nicegui_ws/socket.io/?{query}"
        made = await self.guests.enter_async_context(connect(url, additional_headers=cookie, max_size=None))
        with contextlib.suppress(ConnectionClosed):
            await made.send("40")
        return made


@pytest.fixture
async def door(database: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with await open_connection(database) as connection:
        for name, tenant in (("olga", "acme"), ("bob", "bolt")):
            await add_person(connection, name, "test", password=PASSWORD)
            await grant(connection, name, tenant, Role.operator, "test")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(tmp_path), database, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        address = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        async with contextlib.AsyncExitStack() as guests:
            yield Door(address, guests)
    finally:
        process.terminate()
        await process.wait()


def page_in(answer: httpx.Response) -> str:
    """The id of the page that NiceGUI keeps."""
    found = re.search(r"client_id\W+([0-9a-f-]{36})", answer.text)
    assert found is not None, answer.text
    return found[1]


async def heard(socket: ClientConnection, wanted: str) -> str:
    """What it is told, until that; or all, when it is closed before."""
    told = ""
    with contextlib.suppress(ConnectionClosed):
        while wanted not in told:
            said = str(await asyncio.wait_for(socket.recv(), 30))
            if said == "2":
                await socket.send("3")
            told += said
    return told


async def test_a_page_hears_only_its_own_session_and_ends_with_it(door: Door) -> None:
    olga, bob = await door.client("olga"), await door.client("bob")
    hers, his = page_in(found := await olga.get("/")), page_in(await bob.get("/"))
    for page, who, more in ((hers, None, ""), (hers, bob, ""), (his, bob, f"&client_id={hers}"), ("x", olga, "")):
        assert SENT_AWAY in await heard(await door.socket(page, who, more=more), SENT_AWAY)
    own, other = await door.socket(hers, olga), await door.socket(his, bob)
    for socket in (own, other):
        assert IN in await heard(socket, IN)
    # Forged and misshapen words change nothing, and the socket that said them stays.
    for said in (
        f'["event",{{"client_id":"{hers}","id":4,"listener_id":"x","args":[]}}]', '["event",null]', '["event"]',
        '["event",{"client_id":["a"]}]', f'["event",{{"client_id":"{his}"}}]', '["handshake",null]',
        f'["handshake",{{"client_id":"{hers}","tab_id":"t","document_id":"d"}}]', '["javascript_response",1]',
        f'["log",{{"client_id":"{his}","level":"error","message":"x"}}]', '["nothing"]',
    ):  # fmt: skip
        await other.send(f"42{said}")
    await other.send('421["handshake",0]')
    assert "431[false]" in await heard(other, "431[")
    csrf = re.search(r'name="csrf" value="([^"]+)"', found.text)
    assert csrf is not None
    assert (await olga.post("/sign-out", data={"csrf": csrf[1]})).status_code == 303
    assert '"open"' in await heard(own, '"0":null')  # it is told to look again, and is no more
    assert SENT_AWAY in await heard(await door.socket(hers, bob), SENT_AWAY)
    assert page_in(await bob.get("/"))  # who is signed in still is


async def test_who_asks_without_end_leaves_nothing_behind(door: Door) -> None:
    stranger = await door.client()
    for form in (
        "&".join(f"f{n}=1" for n in range(30)), "x" * 10_000, "name=%00&password=%00", "link=%00",
        f"name=olga&password={'p' * 2000}",
    ):  # fmt: skip
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await stranger.post("/sign-in", content=form, headers=headers)).status_code in (403, 429)
    assert (await stranger.post("/_nicegui_ws/socket.io/?EIO=4&transport=polling", content=b"x")).status_code == 403
    olga, bob = await door.client("olga"), await door.client("bob")
    pages = [page_in(await olga.get("/")) for _ in range(MOST_OF_ONE + 3)]
    assert SENT_AWAY in await heard(await door.socket(pages[0], olga), SENT_AWAY)  # it made room
    for page in pages[3:]:
        assert IN in await heard(await door.socket(page, olga), IN)
    assert (await olga.get("/")).status_code == 503  # each of them has a browser
    assert page_in(await bob.get("/"))


async def test_who_guesses_is_counted_by_the_address_that_the_proxy_adds(door: Door, database: str) -> None:
    guesser = await door.client()
    for n in range(3):
        headers = [("x-forwarded-for", f"10.0.0.{n}"), ("x-forwarded-for", "192.0.2.7")]
        await guesser.post("/sign-in", data={"name": f"who{n}", "password": "guessed"}, headers=headers)
    async with await open_connection(database) as connection:
        found = await connection.execute("SELECT n FROM circuit.sign_in_attempts WHERE kind = 'address'")
        assert await found.fetchall() == [(3,)]
