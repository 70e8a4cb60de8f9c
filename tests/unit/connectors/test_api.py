from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from circuit_script.connectors import api as module
from circuit_script.connectors.api import Access, Api, Failed, Fault, after_of, hide, said
from circuit_script.connectors.connector import Later, Refused, SlowDown, Unknown
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable
from tests.receiver import Got, Receiver, receiving, response

TOKEN = "secret-token-of-acme"


class Keys:
    """The access of one tenant; ``fresh`` are tokens that come when one was refused."""

    def __init__(self, url: str, *fresh: str, error: Exception | None = None) -> None:
        self.url = url
        self.token = TOKEN
        self.fresh = list(fresh)
        self.error = error
        self.asked = 0

    async def of(self, tenant: str) -> Access:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Access({"authorization": f"Bearer {self.token}"}, f"{self.url}/", "A-1")

    async def refused(self, tenant: str, access: Access) -> bool:
        if self.fresh:
            self.token = self.fresh.pop(0)
            return True
        return False


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


def api_of(client: httpx.AsyncClient, keys: Keys, *faults: Fault, **more: Any) -> Api:
    return Api(client, keys, name="toy", faults=faults, **more)


async def failure(api: Api, *, writes: bool = True, **more: Any) -> Failed:
    with pytest.raises(Failed) as caught:
        await api.send("acme", "POST", "/things", writes=writes, **more)
    return caught.value


async def test_a_request_has_its_tenants_access_and_its_answer_is_whole(client: httpx.AsyncClient) -> None:
    body = json.dumps({"text": "x" * 1000}).encode()

    def answer(got: Got) -> bytes:
        return response(200, gzip.compress(body), content_encoding="gzip", content_type="application/json")

    async with receiving(answer) as receiver:
        api = api_of(client, Keys(receiver.url), headers={"version": "1"})
        found = await api.send("acme", "POST", "/things?x=1", json={"a": 1}, headers={"x-more": "2"})
    assert found.json() == {"text": "x" * 1000}
    (got,) = receiver.got
    assert got.line == "POST /things?x=1 HTTP/1.1"
    assert got.headers["authorization"] == f"Bearer {TOKEN}"
    assert (got.headers["version"], got.headers["x-more"]) == ("1", "2")
    assert json.loads(got.body) == {"a": 1}


@pytest.mark.parametrize(
    ("status", "headers", "writes", "expected"),
    [
        (400, {}, True, Refused("HTTP 400: no")),
        (404, {}, False, Refused("HTTP 404: no")),
        (302, {"location": "/else"}, True, Refused("HTTP 302: no")),
        (429, {"retry_after": "7"}, True, SlowDown("HTTP 429: no", 7.0)),
        (429, {}, False, SlowDown("HTTP 429: no", None)),
        (500, {}, True, Unknown("HTTP 500: no")),
        (503, {"retry_after": "3"}, False, Later("HTTP 503: no", 3.0, down=True)),
    ],
)
async def test_an_answer_that_no_table_has_means_what_http_says(
    client: httpx.AsyncClient, status: int, headers: dict[str, str], writes: bool, expected: object
) -> None:
    async with receiving(lambda got: response(status, b"no", **headers)) as receiver:
        failed = await failure(api_of(client, Keys(receiver.url)), writes=writes)
    assert failed.delivery == expected
    assert failed.status == status
    assert len(receiver.got) == 1  # a redirect is not followed


@pytest.mark.parametrize(
    ("means", "writes", "expected"),
    [
        ("refused", True, Refused("HTTP 418 E1: it")),
        ("missing", True, Refused("HTTP 418 E1: it")),
        ("later", True, Later("HTTP 418 E1: it")),
        ("down", True, Later("HTTP 418 E1: it", down=True)),
        ("slow_down", True, SlowDown("HTTP 418 E1: it")),
        ("unknown", True, Unknown("HTTP 418 E1: it")),
        ("unknown", False, Later("HTTP 418 E1: it", down=True)),
    ],
)
async def test_the_first_fault_that_fits_says_what_it_means(
    client: httpx.AsyncClient, means: Any, writes: bool, expected: object
) -> None:
    table = (Fault(418, "slow_down", "E2"), Fault((410, 420), means, "E1"), Fault(418, "refused"))
    async with receiving(lambda got: response(418, b'{"code": "E1", "message": "it"}')) as receiver:
        api = api_of(client, Keys(receiver.url), *table, code_of=lambda response: response.json()["code"])
        failed = await failure(api, writes=writes)
    assert failed.delivery == expected
    assert (failed.code, failed.missing) == ("E1", means == "missing")
    assert failed.response is not None


async def test_a_success_may_be_a_fault_too(client: httpx.AsyncClient) -> None:
    def code_of(answer: httpx.Response) -> str | None:
        return answer.json().get("error")

    bodies = [b'{"ok": true}', b'{"error": "limit"}']
    async with receiving(lambda got: response(200, bodies.pop(0))) as receiver:
        api = api_of(client, Keys(receiver.url), Fault((200, 299), "slow_down", "limit"), code_of=code_of)
        assert (await api.send("acme", "GET", "/")).json() == {"ok": True}
        failed = await failure(api)
    assert isinstance(failed.delivery, SlowDown)


async def test_what_a_vendor_answers_may_have_any_shape(client: httpx.AsyncClient) -> None:
    def code_of(answer: httpx.Response) -> str | None:
        return str(answer.json()["error"]["code"])

    body = b"\xff\x00<html>" + b"x" * 5000
    async with receiving(lambda got: response(422, body, retry_after="never")) as receiver:
        failed = await failure(api_of(client, Keys(receiver.url), Fault(422, "later"), code_of=code_of))
    assert isinstance(failed.delivery, Later)
    assert failed.delivery.after is None
    assert len(failed.delivery.reason) < 250
    assert failed.code is None


async def test_a_token_that_is_refused_is_renewed_once(client: httpx.AsyncClient) -> None:
    def answer(got: Got) -> bytes:
        return response(200 if got.headers["authorization"] == "Bearer new-token" else 401, b"bad token")

    async with receiving(answer) as receiver:
        keys = Keys(receiver.url, "new-token")
        assert (await api_of(client, keys).send("acme", "POST", "/", writes=True)).status_code == 200
        assert len(receiver.got) == 2

        keys = Keys(receiver.url, "another-token", "new-token")
        failed = await failure(api_of(client, keys))
    assert isinstance(failed.delivery, Later)
    assert failed.delivery.down
    assert failed.delivery.reason == "the access of acme to toy was refused: HTTP 401: bad token"
    assert len(receiver.got) == 4


@pytest.mark.parametrize("error", [NotConnected("acme", "toy"), SecretMissing("no toy.key")])
async def test_who_is_not_connected_is_told_and_writes_wait(client: httpx.AsyncClient, error: Exception) -> None:
    api = api_of(client, Keys("http://127.0.0.1:9", error=error))
    with pytest.raises(type(error)):
        await api.send("acme", "GET", "/")
    assert (await failure(api)).delivery == Later(str(error), down=True)


async def test_secrets_that_cannot_be_read_are_no_fault_of_a_request(client: httpx.AsyncClient) -> None:
    api = api_of(client, Keys("http://127.0.0.1:9", error=SecretsUnavailable("vault is sealed")))
    for writes in (True, False):
        found = (await failure(api, writes=writes)).delivery
        assert isinstance(found, Later)
        assert found.down


@pytest.mark.parametrize(("writes", "kind"), [(True, Unknown), (False, Later)])
async def test_no_answer_to_a_write_is_in_doubt(client: httpx.AsyncClient, writes: bool, kind: type) -> None:
    async with receiving(lambda got: None) as receiver:
        assert isinstance((await failure(api_of(client, Keys(receiver.url)), writes=writes)).delivery, kind)


@pytest.mark.parametrize(("writes", "kind"), [(True, Unknown), (False, Later)])
async def test_an_answer_that_does_not_come_in_time_is_none(
    client: httpx.AsyncClient, writes: bool, kind: type
) -> None:
    class Silent(Receiver):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.open.add(writer)
            await reader.read()

    silent = Silent(lambda got: None)
    server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        failed = await failure(api_of(client, Keys(url)), writes=writes, timeout=0.05)
        await silent.close()
    assert isinstance(failed.delivery, kind)


async def test_who_cannot_be_reached_is_down_also_to_a_write(client: httpx.AsyncClient) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    found = (await failure(api_of(client, Keys(f"http://127.0.0.1:{port}")))).delivery
    assert isinstance(found, Later)
    assert found.down


async def test_an_answer_without_an_end_is_not_kept(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100_000)
    body = gzip.compress(b"0" * 200_000)  # small on the wire
    async with receiving(lambda got: response(200, body, content_encoding="gzip")) as receiver:
        api = api_of(client, Keys(receiver.url))
        assert isinstance((await failure(api)).delivery, Unknown)
        assert isinstance((await failure(api, writes=False)).delivery, Refused)


@pytest.mark.parametrize("path", ["http://elsewhere/x", "//elsewhere/x", "x", ""])
async def test_a_path_leads_nowhere_else(client: httpx.AsyncClient, path: str) -> None:
    api = api_of(client, Keys("http://127.0.0.1:9"))
    with pytest.raises(Failed, match="is no path of toy"):
        await api.send("acme", "GET", path)


@pytest.mark.parametrize("value", [float("nan"), object(), b"x"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, value: object) -> None:
    found = (await failure(api_of(client, Keys("http://127.0.0.1:9")), json={"a": value})).delivery
    assert isinstance(found, Refused)


async def test_what_was_set_for_one_tenant_is_not_sent_for_another(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, b"", set_cookie="session=acme; Path=/")) as receiver:
        api = api_of(client, Keys(receiver.url))
        await api.send("acme", "GET", "/")
        await api.send("other", "GET", "/")
    assert all("cookie" not in got.headers for got in receiver.got)


@pytest.mark.parametrize("token", [f"{TOKEN}\nx", f"{TOKEN}é…"])
async def test_a_token_that_cannot_be_sent_is_not_told(client: httpx.AsyncClient, token: str) -> None:
    keys = Keys("http://127.0.0.1:9")
    keys.token = token
    found = (await failure(api_of(client, keys))).delivery
    assert TOKEN not in repr(found)


async def test_a_vendor_that_repeats_the_token_does_not_tell_it(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(400, got.headers["authorization"].encode())) as receiver:
        failed = await failure(api_of(client, Keys(receiver.url)))
    assert TOKEN not in f"{failed!r} {failed} {failed.delivery!r}"
    assert TOKEN not in repr(await Keys("http://x").of("acme"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"message": "a\\nb"}', "a b"),
        (b'{"message": ["a", "b"]}', "a; b"),
        (b'[{"message": "first"}]', "first"),
        (b'{"error": {"x": 1}}', '{"error": {"x": 1}}'),
        (b"plain", "plain"),
        (b"", ""),
        (b"[" * 3000, "[" * 200),
    ],
)
def test_what_is_said_is_one_short_line(body: bytes, expected: str) -> None:
    assert said(httpx.Response(400, content=body)) == expected


def test_short_words_are_not_taken_for_secrets() -> None:
    assert hide("it is a test", Access({"x-mode": "test"}, "")) == "it is a test"
    assert hide("key k-123456", Access({"x-key": "k-123456"}, "")) == "key …"


def test_the_seconds_of_retry_after() -> None:
    assert after_of(httpx.Response(429, headers={"retry-after": "5"})) == 5.0
    assert after_of(httpx.Response(429)) is None
