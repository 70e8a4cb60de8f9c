"""What a library's request is taken for, what it pays for and what it may not hide, in real children."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import Breached, Failed, Succeeded
from tests.integration.execution.callouts import Broker
from tests.integration.execution.conftest import Bench, PoolOf
from tests.receiver import Receiver, receiving, response

pytestmark = pytest.mark.evasion

APP = """
import socket
import urllib.parse

@trigger("Contact", ["afterInsert"])
async def look(context):
    record = context.new_records[0]
    answer = globals()[record["library"]](record["url"], record.get("times", 1))
    if hasattr(answer, "__await__"):
        answer = await answer
    log.info(str(answer))

def place(url):
    parts = urllib.parse.urlsplit(url)
    return parts.hostname, parts.port

def requests_get(url, times):
    import requests
    return requests.get(url + "/oembed?url=https://youtube.com/x").text

def urllib_request(url, times):
    import urllib.request
    return urllib.request.urlopen(url + "/oembed?url=https://youtube.com/x").read().decode()

def stdlib(url, target):
    import http.client
    connection = http.client.HTTPConnection(*place(url))
    connection.request("OPTIONS", target)
    return connection.getresponse().read().decode()

def stdlib_by_hand(url, target):
    import http.client
    connection = http.client.HTTPConnection(*place(url))
    connection.putrequest("OPTIONS", target)
    connection.endheaders()
    return connection.getresponse().read().decode()

def urllib3_pool(url, target):
    import urllib3
    return urllib3.HTTPConnectionPool(*place(url)).urlopen(
        "OPTIONS", target, retries=False, assert_same_host=False
    ).data.decode()

def body(url, times):
    import requests
    def chunks():
        for _ in range(times):
            socket.create_connection(place(url)).close()
            yield b"x"
    return requests.post(url, data=chunks()).text

async def task(url, times):
    import httpx
    go, begun = asyncio.Event(), []
    async def after():
        await go.wait()
        for _ in range(times):
            (await asyncio.open_connection(*place(url)))[1].close()
    async def chunks():
        begun.append(asyncio.create_task(after()))
        yield b"x"
    async with httpx.AsyncClient() as client:
        await client.post(url, content=chunks())
    go.set()
    await begun[0]
    return "here"

def elsewhere(url, other):
    # A connection to another host within a request.
    import requests
    def chunks():
        socket.create_connection(place(other)).close()
        yield b"x"
    return requests.post(url, data=chunks()).text

def on_uvloop(work):
    import uvloop
    return asyncio.to_thread(uvloop.run, work)

def uvloop_httpx(url, times):
    import httpx
    async def work():
        async with httpx.AsyncClient() as client:
            return [(await client.get(url)).text for _ in range(times)]
    return on_uvloop(work())

def uvloop_aiohttp(url, times):
    import aiohttp
    async def work():
        async with aiohttp.ClientSession() as session:
            return [await (await session.get(url)).text() for _ in range(times)]
    return on_uvloop(work())

def uvloop_raw(url, times):
    async def work():
        for _ in range(times):
            (await asyncio.open_connection("localhost", place(url)[1]))[1].close()
        return "here" * times
    return on_uvloop(work())

def uvloop_datagrams(url, times):
    async def work():
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=place(url))
    return on_uvloop(work())
"""


@pytest.fixture
async def shop() -> AsyncIterator[Receiver]:
    async with receiving(lambda got: response(200, b"here")) as receiver:
        yield receiver


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(Guard(private=Private.of(["127.0.0.1"]))) as made:
        yield made


@pytest.fixture
async def bench(pool_of: PoolOf) -> Bench:
    return await pool_of(APP)


async def run(bench: Bench, broker: Broker, library: str, url: str, times: Any = 1, **limits: Any) -> Any:
    record = {"id": "1", "library": library, "url": url, "times": times}
    return await bench.run("look", records=[record], broker=broker, **limits)


async def test_an_address_within_a_query_is_no_host(bench: Bench, client: httpx.AsyncClient, shop: Receiver) -> None:
    for library in ("requests_get", "urllib_request"):
        broker = Broker(client, egress=("127.0.0.1",))
        outcome = await run(bench, broker, library, shop.url)
        assert isinstance(outcome, Succeeded), (library, outcome)
        assert (broker.messages, broker.usage.callouts) == (["here"], 1)


@pytest.mark.parametrize("library", ["stdlib", "stdlib_by_hand", "urllib3_pool"])
async def test_a_target_hides_no_host(bench: Bench, client: httpx.AsyncClient, shop: Receiver, library: str) -> None:
    for target in ("*", "/x", "//allowed.com/x", "http://127.0.0.1/"):
        outcome = await run(bench, Broker(client, egress=("127.0.0.1",)), library, shop.url, target)
        assert isinstance(outcome, Succeeded), (target, outcome)
    left = len(shop.got)
    for target in ("http://allowed.com/", "HTTP://allowed.com/", "@allowed.com/", "//allowed.com/", "*"):
        broker = Broker(client, egress=("allowed.com",))
        outcome = await run(bench, broker, library, shop.url, target)
        assert isinstance(outcome, Failed), (target, broker.messages)
        assert "127.0.0.1 is not in the egress list" in outcome.reason, target
    outcome = await run(bench, Broker(client, egress=("127.0.0.1",)), library, shop.url, "http://allowed.com/")
    assert isinstance(outcome, Failed)
    assert "allowed.com is not in the egress list" in outcome.reason
    assert len(shop.got) == left


@pytest.mark.parametrize("library", ["body", "task"])
async def test_a_request_pays_for_a_few_connections_until_it_is_over(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver, library: str
) -> None:
    broker = Broker(client, callouts=20)
    outcome = await run(bench, broker, library, shop.url, 40, callouts=20)
    assert isinstance(outcome, Breached), (outcome, broker.messages)
    assert outcome.limit == "callouts"


async def test_a_request_pays_for_its_own_host_only(bench: Bench, client: httpx.AsyncClient, shop: Receiver) -> None:
    async with receiving(lambda got: response(200)) as other:
        url = other.url.replace("127.0.0.1", "127.0.0.2")  # nobody listens there, which nobody has to
        broker = Broker(client, private=("127.0.0.0/8",))
        await run(bench, broker, "elsewhere", shop.url, url)
        assert broker.usage.callouts == 2
        listed = Broker(client, private=("127.0.0.0/8",), egress=("127.0.0.1",))
        outcome = await run(bench, listed, "elsewhere", shop.url, url)
    assert isinstance(outcome, Failed)
    assert "127.0.0.2 is not in the egress list" in outcome.reason + outcome.detail


@pytest.mark.parametrize(("library", "callouts"), [("uvloop_httpx", 3), ("uvloop_aiohttp", 3), ("uvloop_raw", 3)])
async def test_uvloop_hides_no_connection(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver, library: str, callouts: int
) -> None:
    broker = Broker(client, private=("127.0.0.0/8", "localhost"))
    outcome = await run(bench, broker, library, shop.url, 3)
    assert isinstance(outcome, Succeeded), outcome
    assert broker.messages[0].count("here") == 3
    attempts = sum(verb == "connect" for verb in broker.verbs)
    assert broker.usage.callouts == (attempts if library == "uvloop_raw" else callouts)
    assert attempts >= 1
    for closed in (Broker(client, private=()), Broker(client, egress=("allowed.com",))):
        outcome = await run(bench, closed, library, shop.url)
        assert isinstance(outcome, Failed), closed.messages
        assert "not public (loopback)" in outcome.reason or "egress list" in outcome.reason


async def test_datagrams_of_uvloop_are_refused(bench: Bench, client: httpx.AsyncClient, shop: Receiver) -> None:
    outcome = await run(bench, Broker(client), "uvloop_datagrams", shop.url)
    assert isinstance(outcome, Failed)
    assert "datagrams of uvloop cannot be counted" in outcome.reason


async def ask(broker: Broker, verb: str, **asked: Any) -> Any:
    answer = await broker.request(verb, asked)
    return answer.get("refused") if isinstance(answer, dict) else answer


def with_names(client: httpx.AsyncClient, egress: tuple[str, ...] | None, **names: str) -> Broker:
    """A broker whose names have these addresses ("_" stands for a dot)."""

    async def resolve(host: str, port: int) -> list[str]:
        return [names[host.replace(".", "_")]]

    return Broker(client, egress=egress, parts=CalloutParts(guard=Guard(resolve=resolve)))


async def test_a_request_leads_where_its_host_does(client: httpx.AsyncClient) -> None:
    broker = with_names(client, ("a.example",), a_example="8.8.8.8", b_example="9.9.9.9", in_example="10.0.0.1")
    assert await ask(broker, "request", method="GET", url="https://a.example/") is None
    assert await ask(broker, "connect", host="8.8.8.8", port=443, way="a.example", names=["a.example"]) is None
    assert broker.usage.callouts == 1
    refused = await ask(broker, "connect", host="9.9.9.9", port=443, way="a.example", names=["a.example", "b.example"])
    assert "9.9.9.9 is not in the egress list" in refused[0]
    assert (
        "b.example" in (await ask(broker, "request", method="GET", url="https://a.example/", via=["b.example", 1]))[0]
    )

    free = with_names(client, None, a_example="8.8.8.8", in_example="10.0.0.1")
    assert "10.0.0.1" in (await ask(free, "request", method="GET", url="http://in.example/"))[0]
    assert await ask(free, "connect", host="9.9.9.9", port=443, way="a.example", names=[]) is None
    assert free.usage.callouts == 2


@pytest.mark.parametrize("verb", ["http", "request"])
async def test_no_host_is_longer_than_dns_has_them(client: httpx.AsyncClient, verb: str) -> None:
    with pytest.raises(RequestRefused, match="253 characters at most"):
        await Broker(client).request(verb, {"method": "GET", "url": f"http://{'a' * 254}/"})


async def test_the_name_that_is_connected_to_is_the_one_that_is_listed(client: httpx.AsyncClient) -> None:
    broker = with_names(client, ("fass.de",), fass_de="8.8.8.8")
    for verb in ("http", "request"):
        assert "egress list" in (await ask(broker, verb, method="GET", url="http://faß.de/"))[0]
    assert await ask(broker, "connect", host="faß.de", port=80) is None, "Python's sockets go to fass.de"
