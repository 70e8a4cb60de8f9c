"""Libraries that speak HTTP by themselves, in real children, to a real server: each request counts once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import Breached, Failed, Succeeded
from circuit_script.telemetry.w3c import read_traceparent
from tests.integration.execution.callouts import Broker
from tests.integration.execution.conftest import Bench, PoolOf
from tests.receiver import Got, Receiver, receiving, response

pytestmark = pytest.mark.evasion

APP = """
URL = ""

@trigger("Contact", ["afterInsert"])
async def look(context):
    record = context.new_records[0]
    answer = globals()[record["library"]](record["url"], record.get("times", 1))
    if hasattr(answer, "__await__"):
        answer = await answer
    log.info(str(answer))

def stdlib(url, times):
    import http.client, urllib.parse
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    found = []
    for _ in range(times):
        connection.request("GET", parts.path or "/")
        found.append(connection.getresponse().read().decode())
    connection.close()
    return found

def by_hand(url, times):
    import http.client, urllib.parse
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    found = []
    for _ in range(times):
        connection.putrequest("GET", parts.path or "/")
        connection.endheaders()
        found.append(connection.getresponse().read().decode())
    connection.close()
    return found

def urllib_request(url, times):
    import urllib.request
    return [urllib.request.urlopen(url).read().decode() for _ in range(times)]

def urllib3_pool(url, times):
    import urllib3
    with urllib3.PoolManager() as pool:
        return [pool.request("GET", url).data.decode() for _ in range(times)]

def requests_get(url, times):
    import requests
    with requests.Session() as session:
        return [session.get(url).text for _ in range(times)]

async def httpx_async(url, times):
    import httpx
    async with httpx.AsyncClient(follow_redirects=True) as client:
        return [(await client.get(url)).text for _ in range(times)]

def httpx_sync(url, times):
    import httpx
    with httpx.Client(follow_redirects=True) as client:
        return [client.get(url).text for _ in range(times)]

async def httpx2_async(url, times):
    import httpx2
    async with httpx2.AsyncClient(follow_redirects=True) as client:
        return [(await client.get(url)).text for _ in range(times)]

def httpx2_sync(url, times):
    import httpx2
    with httpx2.Client(follow_redirects=True) as client:
        return [client.get(url).text for _ in range(times)]

async def aiohttp_session(url, times):
    import aiohttp
    found = []
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            async with session.get(url) as answer:
                found.append(await answer.text())
    return found

async def uploads(url, times):
    # A body that is itself fetched while it is sent.
    import httpx
    async with httpx.AsyncClient() as client:
        async def body():
            async with client.stream("GET", url) as source:
                async for chunk in source.aiter_bytes():
                    yield chunk
        return [(await client.post(url, content=body(), headers={"content-length": "4"})).text for _ in range(times)]

async def in_threads(url, times):
    return await asyncio.gather(*[asyncio.to_thread(requests_get, url, 1) for _ in range(times)])

def requests_error(url, times):
    import requests
    try:
        requests.get(url)
    except requests.exceptions.ConnectionError as error:
        return error

def urllib_error(url, times):
    import urllib.error, urllib.request
    try:
        urllib.request.urlopen(url)
    except urllib.error.URLError as error:
        return error

def stdlib_error(url, times):
    try:
        stdlib(url, times)
    except PermissionError as error:
        return error

async def httpx_async_error(url, times):
    import httpx
    try:
        await httpx_async(url, times)
    except httpx.ConnectError as error:
        return error

def httpx2_sync_error(url, times):
    import httpx2
    try:
        httpx2_sync(url, times)
    except httpx2.ConnectError as error:
        return error

async def aiohttp_error(url, times):
    import aiohttp
    try:
        await aiohttp_session(url, times)
    except aiohttp.ClientConnectionError as error:
        return error

async def ours_error(url, times):
    import httpx
    try:
        await ours(url, times)
    except httpx.ConnectError as error:
        assert isinstance(error, CalloutRefused) and isinstance(error, RequestRefused)
        return error

def timeouts(url, times):
    # What each library waits at most, as its sockets say.
    import http.client, socket, requests, urllib.parse
    seen = []
    settimeout = socket.socket.settimeout
    socket.socket.settimeout = lambda self, seconds: (seen.append(seconds), settimeout(self, seconds))[1]
    try:
        requests_get(url, 2)
        stdlib(url, 2)
        requests.get(url, timeout=0.75)
    finally:
        socket.socket.settimeout = settimeout
    return [seconds for seconds in seen if seconds != 0]

def raw(url, times):
    import socket, urllib.parse
    parts = urllib.parse.urlsplit(url)
    for _ in range(times):
        with socket.create_connection((parts.hostname, parts.port), 5):
            pass
    return "connected"

def by_name(url, times):
    import socket, urllib.parse
    with socket.socket() as wire:
        wire.settimeout(5)
        wire.connect(("localhost", urllib.parse.urlsplit(url).port))
    return "connected"

def datagrams(url, times):
    import socket, urllib.parse
    port = urllib.parse.urlsplit(url).port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        for _ in range(times):
            wire.sendto(b"x", ("127.0.0.1", port))
            wire.sendmsg([b"x"], [], 0, ("127.0.0.1", port))
    return "sent"

async def ours_plain(url, times):
    in_a_thread = await asyncio.to_thread(lambda: run(http.get(url)).text)
    return run(http.get(url)).text + (await http.get(url)).text + in_a_thread

async def cookies(url, times):
    async with http:
        await http.get(url)
    return dict(http.cookies)

async def closes(url, times):
    await http.aclose()
    async with http as same:
        async with same.stream("POST", url, json={"a": 1}) as answer:
            return answer.status_code, [chunk async for chunk in answer.aiter_bytes()]

async def ours(url, times):
    return [(await http.get(url, follow_redirects=True)).text for _ in range(times)]
"""
REDIRECTS = ["urllib_request", "urllib3_pool", "requests_get", "httpx_async", "httpx_sync", "httpx2_async"]
REDIRECTS += ["httpx2_sync", "aiohttp_session"]
LIBRARIES = [*REDIRECTS, "stdlib", "by_hand", "in_threads"]


def answer(got: Got) -> bytes | None:
    path = got.line.split(" ")[1]
    if path == "/there":
        return response(302, location="/here")
    if path == "/slow":
        return b""  # never
    return response(200, b"here")


@pytest.fixture
async def shop() -> AsyncIterator[Receiver]:
    async with receiving(answer) as receiver:
        yield receiver


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(Guard(private=Private.of(["127.0.0.1"]))) as made:
        yield made


@pytest.fixture
async def bench(pool_of: PoolOf) -> Bench:
    return await pool_of(APP)


async def test_each_request_counts_once_whatever_connection_it_takes(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver
) -> None:
    for library in [*LIBRARIES, "ours"]:
        broker, before = Broker(client), len(shop.got)
        record = {"id": "1", "library": library, "url": shop.url, "times": 3}
        outcome = await bench.run("look", records=[record], broker=broker)
        assert isinstance(outcome, Succeeded), (library, outcome)
        assert broker.messages[0].count("here") == 3, (library, broker.messages)
        assert (library, broker.usage.callouts, len(shop.got) - before) == (library, 3, 3)


async def test_each_request_says_which_trace_it_belongs_to(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver
) -> None:
    for library in [*LIBRARIES, "ours"]:
        broker, before = Broker(client, traced=True), len(shop.got)
        record = {"id": "1", "library": library, "url": shop.url, "times": 2}
        outcome = await bench.run("look", records=[record], broker=broker)
        assert isinstance(outcome, Succeeded), (library, outcome)
        said = [read_traceparent(got.headers.get("traceparent")) for got in shop.got[before:]]
        if library == "by_hand":  # its headers are its author's alone
            assert said == [None] * 2
        else:
            assert len({each.parent for each in said if each is not None}) == 2, (library, said)


async def test_a_request_within_another_counts_too(bench: Bench, client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, b"here")) as shop:
        broker = Broker(client)
        outcome = await bench.run("look", records=[{"id": "1", "library": "uploads", "url": shop.url}], broker=broker)
    assert isinstance(outcome, Succeeded), outcome
    assert (broker.usage.callouts, len(shop.got)) == (2, 2)


async def test_each_hop_of_a_redirect_counts(bench: Bench, client: httpx.AsyncClient, shop: Receiver) -> None:
    for library in [*REDIRECTS, "ours"]:
        broker = Broker(client)
        record = {"id": "1", "library": library, "url": f"{shop.url}/there"}
        outcome = await bench.run("look", records=[record], broker=broker)
        assert isinstance(outcome, Succeeded), (library, outcome)
        assert (library, broker.usage.callouts, broker.messages) == (library, 2, ["['here']"])


async def test_a_request_past_the_limit_never_leaves(bench: Bench, client: httpx.AsyncClient, shop: Receiver) -> None:
    for library in LIBRARIES:
        broker, before = Broker(client, callouts=2), len(shop.got)
        record = {"id": "1", "library": library, "url": shop.url, "times": 5}
        outcome = await bench.run("look", records=[record], broker=broker, callouts=2)
        assert isinstance(outcome, Breached), (library, outcome)
        left = len(shop.got) - before
        assert outcome.limit == "callouts"
        assert left == 2 or (library == "in_threads" and left < 2), (library, left)  # some end before theirs leaves


ERRORS = ["requests_error", "urllib_error", "stdlib_error", "httpx_async_error", "httpx2_sync_error", "aiohttp_error"]


async def test_where_a_library_may_not_go_it_gets_its_own_error_with_the_cure(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver
) -> None:
    port = shop.url.rpartition(":")[2]
    for library in [*ERRORS, "ours_error"]:
        record = {"id": "1", "library": library, "url": shop.url}
        if library != "ours_error":  # whose connections are made in the parent, by the guarded client
            private = Broker(client, private=())
            assert isinstance(await bench.run("look", records=[record], broker=private), Succeeded), library
            assert "not public (loopback)" in private.messages[0], (library, private.messages)
            assert f'private = ["127.0.0.1:{port}"]' in private.messages[0]
        egress = Broker(client, egress=("api.example.com",))
        assert isinstance(await bench.run("look", records=[record], broker=egress), Succeeded), library
        assert "127.0.0.1 is not in the egress list of the handler" in egress.messages[0], (library, egress.messages)
        assert egress.usage.callouts == 0
    assert shop.got == []


async def test_a_redirect_to_a_private_address_is_not_followed(bench: Bench, client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, b"secret")) as private:
        async with receiving(lambda got: response(302, location=private.url)) as public:
            allowed = [public.url.removeprefix("http://")]
            async with open_client(Guard(private=Private.of(allowed))) as guarded:
                for library in [*REDIRECTS, "ours"]:
                    broker, before = Broker(guarded, private=allowed), len(public.got)
                    record = {"id": "1", "library": library, "url": public.url}
                    outcome = await bench.run("look", records=[record], broker=broker)
                    assert isinstance(outcome, Failed), (library, broker.messages)
                    assert "not public (loopback)" in outcome.reason + outcome.detail, (library, outcome)
                    assert (library, len(public.got) - before) == (library, 1)
                    assert broker.usage.callouts == (4 if library == "urllib3_pool" else 2)  # it tries again
    assert private.got == []


async def test_a_library_waits_no_longer_than_the_execution_has_left(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver
) -> None:
    broker = Broker(client, remaining=4.5)
    record = {"id": "1", "library": "timeouts", "url": shop.url}
    assert isinstance(await bench.run("look", records=[record], broker=broker), Succeeded)
    seen = json.loads(broker.messages[0].replace("None", "null"))
    assert None not in seen, "none is without end"
    assert max(seen) <= 4.5
    assert 0.75 in seen, "a shorter one stays"


@pytest.mark.parametrize(
    ("library", "times", "callouts"), [("raw", 3, 3), ("by_name", 1, 1), ("datagrams", 5, 1), ("datagrams", 0, 0)]
)
async def test_what_goes_past_http_counts_by_its_connection(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver, library: str, times: int, callouts: int
) -> None:
    record = {"id": "1", "library": library, "url": shop.url, "times": times}
    open_ = Broker(client, private=("127.0.0.0/8", "::1"))
    assert isinstance(await bench.run("look", records=[record], broker=open_), Succeeded)
    assert open_.usage.callouts == callouts
    if callouts:
        closed = Broker(client, private=())
        outcome = await bench.run("look", records=[record], broker=closed)
        assert isinstance(outcome, Failed)
        assert "PermissionError" in outcome.reason
        assert "not public (loopback)" in outcome.reason


async def test_our_own_client_works_in_every_loop_and_is_never_closed(
    bench: Bench, client: httpx.AsyncClient, shop: Receiver
) -> None:
    for library, said in (("ours_plain", "herehere" + "here"), ("closes", "(200, [b'here'])")):
        broker = Broker(client)
        record = {"id": "1", "library": library, "url": shop.url}
        assert isinstance(await bench.run("look", records=[record], broker=broker), Succeeded)
        assert broker.messages == [said]


async def test_cookies_last_as_long_as_the_execution(bench: Bench, client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, set_cookie="session=1; Path=/")) as shop:
        for _ in range(2):
            broker = Broker(client)
            record = {"id": "1", "library": "cookies", "url": shop.url}
            assert isinstance(await bench.run("look", records=[record], broker=broker), Succeeded)
            assert broker.messages == ["{'session': '1'}"]
    assert [got.headers.get("cookie") for got in shop.got] == [None, None]
