"""Endpoints through a real gateway: keys, bodies, headers, streams, and a worker that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from circuit_script.db.pool import open_connection
from circuit_script.errors import StartError
from circuit_script.execution.outcome import Work
from circuit_script.execution.protocol import Head
from circuit_script.gateway import streaming
from circuit_script.gateway.serve import run_gateway
from circuit_script.releases import make_live
from circuit_script.tenants import keys as tenant_keys
from tests.doors import Post, answer, begin_events, endpoint, open_post
from tests.gateways import MAX_BODY, configured, raw, running
from tests.loopback import NOBODY

ORIGIN = "https://app.example"
EVENTS = "/api/events"
HANDLERS = (
    endpoint("echo", "POST", "GET", deadline=120.0),
    endpoint("open", "GET", auth="none"),
    endpoint("events", deadline=20.0),
    endpoint("download", "GET"),
    endpoint("quick", deadline=0.5),
    endpoint("web", "GET", "POST", path=r"/(|status|shop/.*|webhooks/stripe)", kind="web", auth="none"),
)

Fixture = tuple[Post, httpx.AsyncClient, dict[str, str]]


async def handle(work: Work, broker: Any) -> None:
    """One function for all endpoints of these tests."""
    request = work.request
    assert request is not None
    match work.handler:
        case "events":
            begin_events(broker)
            broker.on_chunk(b"data: 1\n\n")
            await asyncio.Event().wait()
        case "download":
            broker.on_head(Head(200, [("content-type", "application/octet-stream")], True))
            for _ in range(15):
                broker.on_chunk(b"x" * 1024 * 1024)
        case "quick":
            await asyncio.sleep(work.limits.wall_time + 30)
        case _:
            headers = dict(request.headers)
            seen = {"tenant": work.tenant, "method": request.method, "path": request.path, "query": request.query}
            answer(broker, 200, {**seen, "headers": headers, "body": request.body.decode()})


@pytest.fixture
async def gateway(database: str, app_folder: Path) -> AsyncIterator[Fixture]:
    async with AsyncExitStack() as stack:
        post = await stack.enter_async_context(open_post(database, app_folder, handle))
        await post.live(*HANDLERS)
        inner = running(database, app_folder, cors_origins=(ORIGIN,), max_held=30 * 1024 * 1024)
        port = await asyncio.to_thread(inner.__enter__)
        # In a thread: the gateway's end waits for calls that the door, in this loop, must still answer.
        stack.push_async_callback(asyncio.to_thread, inner.__exit__, None, None, None)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, verify=NOBODY)
        )
        yield post, client, await post.key()


def port_of(client: httpx.AsyncClient) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


async def test_a_key_names_the_tenant_in_either_header(gateway: Fixture) -> None:
    _, client, headers = gateway
    key = headers["authorization"].removeprefix("Bearer ")
    for sent in (headers, {"x-api-key": key}):
        told = await client.post("/api/echo?a=%20b", headers=sent, content=b"hello")
        assert told.status_code == 200
        assert told.json()["tenant"] == "acme"
        assert told.json()["query"] == "a=%20b"
        assert told.headers["execution-id"]
        assert key not in told.text


@pytest.mark.parametrize(
    "sent",
    [{}, {"authorization": "Bearer cs_" + "a" * 43}, {"authorization": "Basic eA=="}, {"x-api-key": "cs_short"}],
)
async def test_without_a_valid_key_there_is_401_and_nothing_runs(gateway: Fixture, sent: dict[str, str]) -> None:
    post, client, _ = gateway
    told = await client.post("/api/echo", headers=sent, content=b"x" * (MAX_BODY + 1))
    assert told.status_code == 401
    assert told.headers["www-authenticate"].startswith("Bearer")
    assert told.headers["content-type"] == "application/problem+json"
    assert told.json()["type"] == "/problems/api-key"
    assert post.children.works == []


async def test_an_open_endpoint_is_the_default_tenants_unless_a_key_says_otherwise(gateway: Fixture) -> None:
    _, client, headers = gateway
    assert (await client.get("/api/open")).json()["tenant"] == "default"
    assert (await client.get("/api/open", headers=headers)).json()["tenant"] == "acme"
    wrong = {"x-api-key": "cs_" + "b" * 43}
    assert (await client.get("/api/open", headers=wrong)).status_code == 401
    foreign = {"authorization": "Basic dXNlcjpwdw=="}
    assert (await client.get("/api/open", headers=foreign)).json()["headers"]["authorization"] == "Basic dXNlcjpwdw=="


async def test_a_revoked_key_is_refused_within_seconds(gateway: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    post, client, headers = gateway
    monkeypatch.setattr(tenant_keys, "TTL", 0.05)
    assert (await client.post("/api/echo", headers=headers)).status_code == 200
    await post.rows("UPDATE circuit.api_keys SET revoked_at = now() RETURNING 1")
    async with asyncio.timeout(10):
        while (await client.post("/api/echo", headers=headers)).status_code != 401:
            pass


async def test_hop_by_hop_headers_and_forged_lengths_go_neither_way(gateway: Fixture) -> None:
    _, client, headers = gateway
    sent = {**headers, "connection": "keep-alive, x-hop", "x-hop": "1", "te": "trailers", "x-kept": "2"}
    told = (await client.post("/api/echo", headers=sent, content=b"hello")).json()["headers"]
    assert told["x-kept"] == "2"
    assert told["content-length"] == "5"
    assert not {"x-hop", "te", "connection", "authorization"} & set(told)


async def test_requests_that_could_be_read_in_two_ways_are_refused(gateway: Fixture) -> None:
    post, client, headers = gateway
    key = headers["authorization"]
    start = f"POST /api/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {key}\r\n"
    both = start + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/open HTTP/1.1\r\n\r\n"
    two = start + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
    hosts = start + "Host: b\r\nContent-Length: 0\r\n\r\n"
    coded = start + "Transfer-Encoding: gzip\r\n\r\n"
    keys = start + "X-API-Key: cs_" + "a" * 43 + "\r\nContent-Length: 0\r\n\r\n"
    for sent in (both, two, hosts, coded, keys):
        received = await asyncio.to_thread(raw, port_of(client), sent.encode())
        assert received[9:12] in (b"400", b"501"), received[:200]
        assert received.count(b"HTTP/1.1 ") == 1
    assert post.children.works == []


async def test_a_body_is_bounded_whether_its_length_is_told_or_not(gateway: Fixture) -> None:
    post, client, headers = gateway

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * MAX_BODY

    for content in (b"x" * (MAX_BODY + 1), pieces()):
        told = await client.post("/api/echo", headers=headers, content=content)
        assert told.status_code == 413
    assert post.children.works == []
    assert (await client.post("/api/echo", headers=headers, content=b"x" * MAX_BODY)).status_code == 200


async def test_head_and_options_and_methods_that_nobody_takes(gateway: Fixture) -> None:
    _, client, headers = gateway
    head = await client.head("/api/echo", headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 2
    options = await client.options("/api/echo")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
    wrong = await client.delete("/api/echo", headers=headers)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert (await client.get("/api/nothing", headers=headers)).status_code == 404


async def test_pages_of_the_named_origins_may_call_and_others_may_not(gateway: Fixture) -> None:
    _, client, _ = gateway
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = await client.options("/api/echo", headers={"origin": ORIGIN, **asked})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = await client.options("/api/echo", headers={"origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in refused.headers
    told = await client.post("/api/echo", headers={"origin": ORIGIN})
    assert (told.status_code, told.headers["access-control-allow-origin"]) == (401, ORIGIN)
    status = await client.get("/healthz", headers={"origin": ORIGIN})
    assert "access-control-allow-origin" not in status.headers


async def test_own_paths_come_first_and_web_routes_may_have_the_page_at_the_root(gateway: Fixture) -> None:
    _, client, _ = gateway
    assert (await client.get("/")).json()["path"] == "/"
    assert (await client.get("/shop/a%2Fb")).json()["path"] == "/shop/a%2Fb"
    assert (await client.post("/webhooks/stripe", content=b"{}")).json()["path"] == "/webhooks/stripe"
    assert (await client.get("/status")).headers["content-type"].startswith("text/html")
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.post("/webhooks/gohighlevel", content=b"{}")).status_code == 401


async def test_a_silent_stream_is_kept_alive_by_comments(gateway: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE", 0.02)
    _, client, headers = gateway
    async with client.stream("POST", EVENTS, headers=headers) as told:
        assert told.headers["x-accel-buffering"] == "no"
        lines = told.aiter_lines()
        seen = [await anext(lines) for _ in range(4)]
    assert seen == ["data: 1", "", ": keep-alive", ""]


async def test_who_hangs_up_on_a_stream_ends_its_execution(gateway: Fixture) -> None:
    post, client, headers = gateway
    async with client.stream("POST", EVENTS, headers=headers) as told:
        assert await anext(told.aiter_lines()) == "data: 1"
    await post.until("SELECT status, reason FROM circuit.executions", [("failed", "the caller hung up")])
    assert post.children.cancelled == 1


async def test_a_slow_reader_gets_everything_and_holds_nobody_up(gateway: Fixture) -> None:
    post, client, headers = gateway
    with socket.create_connection(("127.0.0.1", port_of(client))) as wire:
        key = headers["authorization"]
        sent = f"GET /api/download HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {key}\r\n\r\n"
        wire.sendall(sent.encode())
        await post.until("SELECT status FROM circuit.executions", ["succeeded"])
        assert (await client.post("/api/echo", headers=headers)).status_code == 200

        def read() -> int:
            total = 0
            while piece := wire.recv(1 << 20):
                total += len(piece)
            return total

        assert await asyncio.to_thread(read) > 15 * 1024 * 1024


async def test_answers_that_nobody_reads_are_held_up_to_a_bound_and_then_the_worst_reader_is_cut_off(
    gateway: Fixture,
) -> None:
    post, client, headers = gateway
    size = 12 * 1024 * 1024  # two of them have room

    async def large(work: Work, broker: Any) -> None:
        broker.on_head(Head(200, []))
        broker.on_chunk(b"x" * size)

    post.children.handler = large
    key = headers["authorization"]
    asked = f"POST /api/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nAuthorization: {key}\r\n"
    asked += "Connection: close\r\n\r\n"
    with ExitStack() as stack:
        slow = []
        for number in range(1, 4):
            wire = stack.enter_context(socket.socket())
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", port_of(client)))
            wire.sendall(asked.encode())
            await asyncio.to_thread(wire.recv, 1)
            slow.append(wire)
            await post.until("SELECT count(*) FROM circuit.executions", [number])
        assert len((await client.post("/api/echo", headers=headers)).content) == size, "who reads gets it all"
        lengths = [await asyncio.to_thread(_read, wire) for wire in slow]
    assert sum(length > size for length in lengths) == 1, "of two there was room for one more"
    assert min(lengths) < size


def _read(wire: socket.socket) -> int:
    total = 0
    with suppress(ConnectionError):
        while piece := wire.recv(1 << 20):
            total += len(piece)
    return total


async def test_more_calls_than_the_gateway_holds_are_told_to_come_back(gateway: Fixture) -> None:
    post, client, headers = gateway
    go = asyncio.Event()

    async def wait(work: Work, broker: Any) -> None:
        await go.wait()
        answer(broker)

    post.children.handler = wait
    async with contextlib.AsyncExitStack() as stack:  # a client takes time that is quadratic in its connections
        clients = [
            httpx.AsyncClient(base_url=client.base_url, headers=headers, timeout=60, verify=NOBODY) for _ in range(10)
        ]
        many = [await stack.enter_async_context(each) for each in clients]
        calls = [asyncio.create_task(many[n % 10].post("/api/echo")) for n in range(500)]
        done: set[asyncio.Task[httpx.Response]] = set()
        while len(done) < 500 - 204:  # four places, and two hundred that wait for one
            done, _ = await asyncio.wait(calls, timeout=0.05)
        assert {each.result().status_code for each in done} == {503}
        assert all(each.result().headers["retry-after"] for each in done)
        go.set()
        answers = await asyncio.gather(*calls)
    assert sum(each.status_code == 200 for each in answers) == 204


async def test_a_worker_that_is_away_is_503_and_found_again(gateway: Fixture) -> None:
    post, client, headers = gateway
    await post.door.stop(0.1)
    told = await client.post("/api/echo", headers=headers)
    assert (told.status_code, told.json()["type"]) == (503, "/problems/no-worker")
    assert told.headers["retry-after"]
    await post.door.start()
    async with asyncio.timeout(10):
        while (await client.post("/api/echo", headers=headers)).status_code != 200:
            await asyncio.sleep(0.01)


async def test_a_worker_that_says_nothing_is_not_waited_for(gateway: Fixture) -> None:
    post, client, headers = gateway

    class Silent:
        async def answer(self, call: Any, caller: Any) -> None:
            await asyncio.Event().wait()

    post.door._answering = Silent()
    told = await client.post("/api/quick", headers=headers)
    assert (told.status_code, told.json()["reason"]) == (504, "worker-silent")


async def test_another_release_is_known_at_once(gateway: Fixture) -> None:
    post, client, headers = gateway
    assert (await client.post("/api/later", headers=headers)).status_code == 404
    await post.live(endpoint("later"))
    async with asyncio.timeout(10):
        while (await client.post("/api/later", headers=headers)).status_code != 200:
            await asyncio.sleep(0.01)
    assert (await client.post("/api/echo", headers=headers)).status_code == 404


async def test_the_openapi_document_is_valid_and_has_the_endpoints(gateway: Fixture) -> None:
    post, client, _ = gateway
    operation = {"operationId": "chat", "responses": {"200": {"description": "OK"}}, "security": [{"key": []}]}
    theirs = {
        "openapi": "3.1.0",
        "info": {"title": "shop", "version": "1"},
        "paths": {"/api/chat": {"post": operation}},
        "components": {"schemas": {"Problem": {"type": "object"}}},
    }
    post.openapi = json.dumps(theirs).encode()
    await post.live(*HANDLERS)
    async with asyncio.timeout(10):
        while "/api/chat" not in (found := (await client.get("/openapi.json")).json())["paths"]:
            await asyncio.sleep(0.01)
    validate(found)
    assert found["openapi"].startswith("3.1")
    assert {"/webhooks/gohighlevel", "/webhooks/standard/{account}", "/healthz"} <= set(found["paths"])
    chat = found["paths"]["/api/chat"]["post"]
    assert chat["security"] == [{"key": []}]
    assert {"401", "500", "503", "504"} <= set(chat["responses"])
    assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


async def test_a_gateway_whose_release_has_endpoints_does_not_start_without_a_worker(
    database: str, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.gateway.serve.WORKER_PATIENCE", 0.1)
    connection = await open_connection(database)
    await make_live(connection, "digest", HANDLERS)
    await connection.close()
    with pytest.raises(StartError, match="no worker answers") as caught:
        await run_gateway(configured(app_folder), database, stop=asyncio.Event())
    assert caught.value.page == "no-worker"
    stop = asyncio.Event()
    ready = asyncio.Event()
    supervised = asyncio.create_task(
        run_gateway(configured(app_folder), database, stop=stop, on_ready=lambda _: ready.set(), supervised=True)
    )
    await asyncio.wait_for(ready.wait(), 10)
    stop.set()
    await supervised


@pytest.mark.parametrize("path", ["/api/open/" + "-" * 60_000, "/shop/" + "%2D" * 20_000, "/nowhere/" + "a/" * 20_000])
async def test_a_path_beyond_the_bound_is_refused_before_it_is_matched(gateway: Fixture, path: str) -> None:
    _, client, _ = gateway
    answered = await client.get(path)
    assert (answered.status_code, answered.json()["reason"]) == (414, "long-path")
    assert (await client.get("/shop/" + "a" * 2042)).status_code == 200
