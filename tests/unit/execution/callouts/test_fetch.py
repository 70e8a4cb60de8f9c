"""Callouts by the real client to real servers on this host; only the names' addresses are made up."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from circuit_script.connectors.circuits import FAILURES
from circuit_script.errors import CalloutRefused, RequestRefused
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.fetch import Answered, Callout, CalloutParts, Fetcher, NoAnswer, Result
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import GuardedTransport, open_client
from circuit_script.governor import MB, LimitExceeded
from tests.receiver import Got, receiving, response

HERE = Private.of(["127.0.0.1"])


class Bench:
    """A fetcher with all that it counts."""

    def __init__(self, client: httpx.AsyncClient, *, allowed: int = 100, quota: int = 100, **parts: Any) -> None:
        self.spent = 0
        self.waited: list[float] = []
        self._quota = quota

        async def sleep(seconds: float) -> None:
            self.waited.append(seconds)

        self.parts = CalloutParts(guard=Guard(private=HERE), sleep=sleep, **parts)
        self.fetcher = Fetcher("acme", client, self.parts, spend=self._spend, left=lambda: self.spent < allowed)

    async def _spend(self) -> None:
        if self.spent >= self._quota:
            raise RequestRefused("the quota is used up.")
        self.spent += 1

    async def get(self, url: str, method: str = "GET", seconds: float = 5.0, **more: Any) -> Result:
        headers: Sequence[tuple[str, str]] = more.pop("headers", ())
        callout = Callout(method, httpx.URL(url), headers, more.pop("body", None), seconds, more.pop("ceiling", MB), 10)
        return await asyncio.wait_for(self.fetcher.fetch(callout), 10)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(Guard(private=HERE)) as made:
        yield made
    await asyncio.sleep(0)  # a turn of the loop, in which servers hear of it


def in_turn(*answers: bytes | None) -> Callable[[Got], bytes | None]:
    """One answer after the other; the last for ever."""
    left = list(answers)
    return lambda got: left.pop(0) if len(left) > 1 else left[0]


@contextlib.asynccontextmanager
async def server_at(host: str, answer: Callable[[str], bytes], port: int = 0) -> AsyncIterator[tuple[int, list[str]]]:
    """A server on another address of loopback, which stands for one of the internet's; its port and what it got."""
    got: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            got.append(head)
            writer.write(answer(head))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        yield server.sockets[0].getsockname()[1], got


def names(table: dict[str, list[list[str]]]) -> tuple[list[str], Any]:
    """A resolver whose answers change: each name's in turn, the last for ever; and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        answers = table[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return asked, resolve


async def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to() -> None:
    """DNS rebinding: the name is public when it is checked, and private whenever it is asked again."""
    asked, resolve = names({"rebind.example": [["127.0.0.2"], ["127.0.0.1"]]})
    async with server_at("127.0.0.2", lambda head: response(200, b"public", connection="close")) as (port, public):
        async with server_at("127.0.0.1", lambda head: response(200, b"private"), port) as (_, private):
            guard = Guard(private=Private.of(["127.0.0.2"]), resolve=resolve)
            async with open_client(guard) as client:
                bench = Bench(client)
                first = await bench.get(f"http://rebind.example:{port}/x")
                with pytest.raises(CalloutRefused, match=r"rebind\.example is at 127\.0\.0\.1, which is not public"):
                    await bench.get(f"http://rebind.example:{port}/x")

    assert isinstance(first, Answered)
    assert first.body == b"public"
    assert (len(public), private) == (1, [])
    assert f"host: rebind.example:{port}" in public[0].lower()
    assert asked == ["rebind.example"] * 2, "once for each connection"


async def test_a_retry_is_checked_again() -> None:
    _, resolve = names({"rebind.example": [["127.0.0.2"], ["127.0.0.1"]]})
    async with server_at("127.0.0.2", lambda head: response(503, connection="close")) as (port, public):
        async with server_at("127.0.0.1", lambda head: response(200), port) as (_, private):
            async with open_client(Guard(private=Private.of(["127.0.0.2"]), resolve=resolve)) as client:
                bench = Bench(client)
                found = await bench.get(f"http://rebind.example:{port}/")

    assert isinstance(found, Answered)
    assert (found.status, len(public), private, bench.spent) == (503, 1, [], 2)


async def test_an_address_that_is_dead_does_not_hide_one_that_answers() -> None:
    _, resolve = names({"two.example": [["127.0.0.3", "127.0.0.2"]]})
    async with server_at("127.0.0.2", lambda head: response(200, b"second", connection="close")) as (port, _):
        async with open_client(Guard(private=Private.of(["127.0.0.0/8"]), resolve=resolve)) as client:
            found = await Bench(client).get(f"http://two.example:{port}/")
    assert isinstance(found, Answered)
    assert found.body == b"second"


def certificate(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    moment = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("name", ["shop.example", "other.example"])
async def test_tls_is_held_against_the_name_not_the_address(tmp_path: Path, name: str) -> None:
    file = certificate(tmp_path, "shop.example")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(file)
    asked: list[str | None] = []
    theirs.sni_callback = lambda sock, server_name, context: asked.append(server_name)
    ours = ssl.create_default_context(cafile=str(file))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response(200, b"safe"))
            await writer.drain()
        writer.close()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    transport = GuardedTransport(Guard(private=HERE, resolve=resolve), verify=ours)
    async with server, httpx.AsyncClient(transport=transport) as client:
        found = await Bench(client, attempts=1).get(f"https://{name}:{port}/")

    assert asked == [name]
    if name == "shop.example":
        assert isinstance(found, Answered)
        assert found.body == b"safe"
    else:
        assert isinstance(found, NoAnswer)
        assert "CERTIFICATE_VERIFY_FAILED" in found.said


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving(lambda got: response(200, b"proxy")) as proxy, receiving(lambda got: response(200)) as shop:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with open_client(Guard(private=HERE)) as client:
            assert isinstance(await Bench(client).get(shop.url), Answered)
    assert (len(proxy.got), len(shop.got)) == (0, 1)


async def test_no_cookie_is_kept(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, set_cookie="session=1")) as shop:
        for _ in range(2):
            await Bench(client).get(shop.url)
    assert [got.headers.get("cookie") for got in shop.got] == [None, None]


async def test_bytes_that_come_drop_by_drop_do_not_outlive_their_time(client: httpx.AsyncClient) -> None:
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        found = await Bench(client).get(url, seconds=0.2)
        await asyncio.wait_for(ended.wait(), 5)  # it hears that nobody listens
    assert isinstance(found, NoAnswer)
    assert found.kind == "ReadTimeout"
    assert "0.20 s" in found.said


@pytest.mark.parametrize(
    ("method", "headers", "attempts"),
    [
        ("GET", [], 3),
        ("PUT", [], 3),
        ("DELETE", [], 3),
        ("POST", [], 1),
        ("PATCH", [], 1),
        ("POST", [("Idempotency-Key", "k")], 3),
    ],
)
@pytest.mark.parametrize("status", [429, 502, 503, 504, None])
async def test_what_may_be_repeated_is_tried_again_and_each_attempt_counts(
    client: httpx.AsyncClient, method: str, headers: list[tuple[str, str]], attempts: int, status: int | None
) -> None:
    failure = None if status is None else response(status)
    async with receiving(in_turn(failure, failure, response(200, b"at last"))) as shop:
        bench = Bench(client)
        found = await bench.get(shop.url, method, headers=headers)
    assert (len(shop.got), bench.spent, len(bench.waited)) == (attempts, attempts, attempts - 1)
    assert (isinstance(found, Answered) and found.status == 200) == (attempts == 3)
    assert all(0 <= wait <= 2 for wait in bench.waited)


@pytest.mark.parametrize("status", [200, 400, 404, 500, 501])
async def test_another_status_is_the_answer(client: httpx.AsyncClient, status: int) -> None:
    async with receiving(lambda got: response(status)) as shop:
        await Bench(client).get(shop.url)
    assert len(shop.got) == 1


async def test_the_host_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    late = format_datetime(moment, usegmt=True)
    first, second = response(429, retry_after="2"), response(503, retry_after=late)
    async with receiving(in_turn(first, second, response(200))) as shop:
        bench = Bench(client)
        await bench.get(shop.url, seconds=30)
    assert 2 <= bench.waited[0] <= 3
    assert 1 <= bench.waited[1] <= 5


@pytest.mark.parametrize(("retry_after", "seconds"), [("3600", 60.0), ("2", 1.5), ("999999999999", 60.0)])
async def test_nobody_waits_longer_than_there_is_time(
    client: httpx.AsyncClient, retry_after: str, seconds: float
) -> None:
    async with receiving(lambda got: response(503, retry_after=retry_after)) as shop:
        bench = Bench(client)
        found = await bench.get(shop.url, seconds=seconds)
    assert isinstance(found, Answered)
    assert (found.status, len(shop.got), bench.waited) == (503, 1, [])


@pytest.mark.parametrize("bound", [{"allowed": 2}, {"quota": 2}, {"attempts": 2}])
async def test_limit_quota_and_setting_end_the_retries_and_the_last_answer_stands(
    client: httpx.AsyncClient, bound: dict[str, int]
) -> None:
    async with receiving(lambda got: response(503, b"still")) as shop:
        found = await Bench(client, **bound).get(shop.url)
    assert isinstance(found, Answered)
    assert (found.body, len(shop.got)) == (b"still", 2)


async def test_a_host_that_fails_is_left_alone_until_a_probe_comes_through(client: httpx.AsyncClient) -> None:
    now = [100.0]
    well = [False]
    async with receiving(lambda got: response(200 if well[0] else 503)) as shop:
        bench = Bench(client, attempts=1, breakers=Breakers(lambda: now[0]))
        for _ in range(FAILURES):
            await bench.get(shop.url)
        with pytest.raises(CalloutRefused) as refused:
            await bench.get(shop.url)
        assert (refused.value.retry_after, len(shop.got), bench.spent) == (5.0, FAILURES, FAILURES)
        now[0] += 5.0
        well[0] = True
        assert isinstance(await bench.get(shop.url), Answered)
        assert isinstance(await bench.get(shop.url), Answered)
    assert len(shop.got) == FAILURES + 2


async def test_who_gives_a_host_no_time_cannot_say_that_it_failed(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: b"") as shop:
        bench = Bench(client, attempts=1)
        for _ in range(FAILURES + 1):
            assert isinstance(await bench.get(shop.url, seconds=0.05), NoAnswer)


@pytest.mark.parametrize("length", [None, 200])
async def test_a_body_over_its_ceiling_is_a_breach(client: httpx.AsyncClient, length: int | None) -> None:
    raw = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
    raw += b"" if length is None else b"content-length: %d\r\n" % length
    async with server_at("127.0.0.1", lambda head: raw + b"\r\n" + b"x" * 200) as (port, _):
        with pytest.raises(LimitExceeded, match="callout_bytes"):
            await Bench(client).get(f"http://127.0.0.1:{port}/", ceiling=100)


async def test_a_host_that_is_not_there_is_no_answer() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    async with open_client(Guard(resolve=resolve)) as client:
        found = await Bench(client).get("http://nowhere.example/")
    assert isinstance(found, NoAnswer)
    assert found.kind == "ConnectError"
    assert "Name or service not known" in found.said


def test_what_is_shown_of_an_address_tells_no_secret() -> None:
    url = httpx.URL("https://ann:pw@api.example.com/people?page=2&api_key=hidden&access_token=hidden#part")
    shown = Callout("GET", url, (), None, 1.0, 1).shown
    assert shown == "GET https://api.example.com/people?page=2&api_key=…&access_token=…"
