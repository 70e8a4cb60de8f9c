"""What leaves on a connection, who shares it, and what its failures tell of the host."""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from circuit_script.connectors.circuits import FAILURES
from circuit_script.errors import CalloutRefused, RequestRefused
from circuit_script.execution.broker.callouts import transport
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.fetch import Answered, Callout, CalloutParts, Fetcher, NoAnswer, Result
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.resolver import Resolver
from circuit_script.execution.broker.callouts.transport import GuardedTransport, open_client
from tests.receiver import receiving, response

HERE = Private.of(["127.0.0.1", "localhost"])


@dataclass
class Wires:
    """A server that keeps its connections, and every byte that came over each."""

    url: str = ""
    came: list[bytearray] = field(default_factory=list)
    answer: bytes = response(200, b"ok")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came.append(came := bytearray())
        while chunk := await reader.read(65536):
            came += chunk
            writer.write(self.answer)
        writer.close()


@pytest.fixture
async def wires() -> AsyncIterator[Wires]:
    made = Wires()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(Guard(private=HERE)) as made:
        yield made
    await asyncio.sleep(0)  # a turn of the loop, in which servers hear of it


async def fetch(
    client: httpx.AsyncClient, url: str, method: str = "GET", *, tenant: str = "acme", **more: Any
) -> Result:
    async def spend() -> None:
        """It is not counted."""

    parts = more.pop("parts", None) or CalloutParts(attempts=1)
    fetcher = Fetcher(tenant, client, parts, spend=spend, left=lambda: True)
    headers: Sequence[tuple[str, str]] = more.pop("headers", ())
    callout = Callout(method, httpx.URL(url), headers, more.pop("body", None), more.pop("seconds", 5.0), 10_000)
    return await asyncio.wait_for(fetcher.fetch(callout), 10)


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked")],
        [("content-length", "2")],
        [("Content-Length", "500")],
        [("Host", "internal"), ("Connection", "close, x-kept"), ("Keep-Alive", "1"), ("Upgrade", "h2c")],
        [("TE", "trailers"), ("Trailer", "x"), ("Expect", "100-continue"), ("Proxy-Authorization", "Basic x")],
    ],
)
async def test_a_request_ends_where_its_body_does_whatever_its_headers_say(
    client: httpx.AsyncClient, wires: Wires, headers: list[tuple[str, str]]
) -> None:
    body = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    found = await fetch(client, wires.url, "POST", headers=[*headers, ("x-kept", "1")], body=body)
    assert isinstance(found, Answered)
    head, _, rest = bytes(wires.came[0]).partition(b"\r\n\r\n")
    said = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
    assert rest == body
    assert said.pop(b"content-length") == str(len(body)).encode()
    assert said.pop(b"host") == wires.url.removeprefix("http://").strip("/").encode()
    assert said.pop(b"connection") == b"keep-alive"
    assert set(said) == {b"x-kept", b"accept", b"accept-encoding", b"user-agent"}


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_a_callout_makes_no_tunnel_and_no_trace(client: httpx.AsyncClient, wires: Wires, method: str) -> None:
    with pytest.raises(RequestRefused, match=f"callouts are not made with {method}"):
        await fetch(client, wires.url, method)
    assert wires.came == []


async def test_a_connection_is_kept_for_its_own_tenant_only(client: httpx.AsyncClient, wires: Wires) -> None:
    for tenant in ("a", "a", "b", "a", "b"):
        assert isinstance(await fetch(client, wires.url, tenant=tenant), Answered)
    assert [came.count(b"GET / ") for came in wires.came] == [3, 2]


async def test_connections_of_tenants_that_are_idle_are_closed(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE_TENANTS", 2)
    guarded = GuardedTransport(Guard(private=HERE))
    async with httpx.AsyncClient(transport=guarded) as client:
        for number in range(6):
            assert isinstance(await fetch(client, wires.url, tenant=str(number)), Answered)
        assert len(guarded._tenants) == 3
        await fetch(client, wires.url, tenant="0")
    assert len(wires.came) == 7, "the first one's was closed"
    assert not guarded._tenants


async def test_who_waits_for_its_own_tenants_connections_tells_nothing_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "CONNECTIONS", 1)
    parts = CalloutParts(breakers=Breakers(), attempts=1)
    async with receiving(lambda got: b"") as silent, open_client(Guard(private=HERE)) as client:
        first = asyncio.create_task(fetch(client, silent.url, parts=parts, seconds=1.3))
        found = await asyncio.gather(*(fetch(client, silent.url, parts=parts, seconds=1.1) for _ in range(FAILURES)))
        assert {each.told()["failed"] for each in found if isinstance(each, NoAnswer)} == {"ConnectTimeout"}
        assert all(isinstance(each, NoAnswer) and each.ours for each in found)
        await first
        parts.breakers.ask("acme", silent.url.removeprefix("http://"))  # one failure, of the one that was asked


async def test_a_name_that_is_not_found_in_time_tells_nothing_of_the_host() -> None:
    go = threading.Event()

    def ask(host: str, port: int) -> Sequence[str]:
        go.wait(30)
        return ["127.0.0.1"]

    parts = CalloutParts(breakers=Breakers(), attempts=1)
    async with open_client(Guard(private=HERE, resolver=Resolver(ask))) as client:
        calls = [fetch(client, f"http://slow.example/{n}", parts=parts, seconds=1.1) for n in range(FAILURES + 1)]
        found = await asyncio.gather(*calls)
    go.set()
    assert all(isinstance(each, NoAnswer) and each.ours for each in found)
    assert isinstance(found[0], NoAnswer)
    waited = re.search(r"waited (\d\.\d\d) s for the addresses of slow\.example", found[0].said)
    assert waited is not None
    assert 0 < float(waited[1]) <= 1.1, "no longer than it was given"
    parts.breakers.ask("acme", "slow.example")


@pytest.mark.parametrize("mistake", [{"method": "GE T"}, {"headers": [("x a", "b")]}, {"url": "ftp://x.example/"}])
async def test_a_handlers_own_mistake_opens_no_circuit(
    client: httpx.AsyncClient, wires: Wires, mistake: dict[str, Any]
) -> None:
    parts = CalloutParts(breakers=Breakers(), attempts=1)
    for _ in range(FAILURES + 1):
        await fetch(client, mistake.get("url", wires.url), mistake.get("method", "GET"), parts=parts,
                    headers=mistake.get("headers", ()))  # fmt: skip
    assert isinstance(await fetch(client, wires.url, parts=parts), Answered)


async def test_a_body_that_cannot_be_unpacked_is_no_answer_and_opens_no_circuit(
    client: httpx.AsyncClient, wires: Wires
) -> None:
    parts = CalloutParts(breakers=Breakers(), attempts=1)
    wires.answer = response(200, gzip.compress(b"hello" * 100)[:-4], content_encoding="gzip")
    for _ in range(FAILURES + 1):
        found = await fetch(client, wires.url, parts=parts)
        assert isinstance(found, NoAnswer)
        assert found.kind == "DecodingError"
    wires.answer = response(200, gzip.compress(b"first,") + gzip.compress(b"second"), content_encoding="gzip")
    found = await fetch(client, wires.url, parts=parts)
    assert isinstance(found, Answered)
    assert found.body == b"first,second"


async def test_a_host_that_is_gone_opens_its_circuit(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: None) as shop:
        parts = CalloutParts(breakers=Breakers(), attempts=1)
        for _ in range(FAILURES):
            assert isinstance(await fetch(client, shop.url, parts=parts), NoAnswer)
        with pytest.raises(CalloutRefused):
            await fetch(client, shop.url, parts=parts)
