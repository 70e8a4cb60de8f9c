"""A handler names a secret; the broker sends its value, to hosts that it was given, and nobody else sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from circuit_script.errors import SecretMissing
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import Succeeded
from tests.integration.execution.callouts import Broker
from tests.integration.execution.conftest import PoolOf
from tests.receiver import Got, Receiver, receiving, response

VALUE = "sesame-open-now"
APP = """
import json
import os

KEY = secret("crm.key", prefix="Bearer ")

@trigger("Contact", ["afterInsert"])
async def call(context):
    for record in context.new_records:
        try:
            answer = await http.post(
                record["url"],
                headers={"authorization": KEY, "x-two": secret("a") + "|" + secret("b"), "x-text": record["text"]},
                json={"n": 1},
            )
            log.info(json.dumps([answer.status_code, answer.text, answer.headers.get("x-echo"), KEY]))
        except RequestRefused as error:
            log.info(f"refused: {error}")
        log.info(json.dumps(dict(os.environ)))

@trigger("Contact", ["afterUpdate"])
async def slip(context):
    try:
        await http.post(context.new_records[0]["url"], json={"key": secret("crm.key")})
    except ValueError as error:
        log.info(str(error))
"""


class Known:
    """The secrets of a worker: by tenant and name, and where each may go."""

    def __init__(self, *hosts: str) -> None:
        self.allowed = hosts
        self.values = {("acme", "crm.key"): VALUE, ("acme", "a"): "value of a", ("acme", "b"): "value of b"}

    async def get(self, tenant: str, name: str) -> str:
        if (tenant, name) not in self.values:
            raise SecretMissing(f"There is no {name}.", cure="Put it in.")
        return self.values[tenant, name]

    async def hosts(self, tenant: str, name: str) -> tuple[str, ...]:
        return self.allowed


def echo(got: Got) -> bytes:
    return response(200, json.dumps(got.headers).encode(), x_echo=got.headers.get("authorization", ""))


@pytest.fixture
async def vendor() -> AsyncIterator[Receiver]:
    async with receiving(echo) as made:
        yield made


def parts(known: Known | None, *private: str) -> CalloutParts:
    return CalloutParts(guard=Guard(private=Private.of(private or ("127.0.0.1",))), attempts=1, secrets=known)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(Guard(private=Private.of(["127.0.0.1"]))) as made:
        yield made


async def told(pool_of: PoolOf, broker: Broker, url: str, handler: str = "call", text: str = "plain") -> list[str]:
    bench = await pool_of(APP)
    outcome = await bench.run(handler, records=[{"id": "1", "url": url, "text": text}], broker=broker)
    assert isinstance(outcome, Succeeded), outcome
    return broker.messages


async def test_the_host_gets_the_values_and_the_child_a_mark(
    pool_of: PoolOf, client: httpx.AsyncClient, vendor: Receiver
) -> None:
    broker = Broker(client, parts=parts(Known("127.0.0.1")), traced=True)
    answer, environment = await told(pool_of, broker, vendor.url, text="[secret crm.key]")
    (got,) = vendor.got
    assert got.headers["authorization"] == f"Bearer {VALUE}"
    assert got.headers["x-two"] == "value of a|value of b"
    assert got.headers["x-text"] == "[secret crm.key]", "what looks like a name is none"
    status, body, echoed, key = json.loads(answer)
    assert status == 200
    assert json.loads(body)["authorization"] == "Bearer [redacted]"
    assert echoed == "Bearer [redacted]"
    assert key.startswith("Bearer secret-")
    everything = repr([broker.asked, broker.lines, answer, environment, broker.usage, broker._recorder])
    assert VALUE not in everything
    assert "value of" not in everything
    assert key.removeprefix("Bearer ").partition("<")[0] not in repr(vendor.got), "the mark stays here"


async def test_it_leaves_for_no_other_host(pool_of: PoolOf, client: httpx.AsyncClient, vendor: Receiver) -> None:
    broker = Broker(client, parts=parts(Known("api.example.com")))
    (said, _) = await told(pool_of, broker, vendor.url)
    assert "the secret crm.key may be sent to api.example.com only" in said
    assert "circuit-script secrets allow crm.key --hosts api.example.com,127.0.0.1" in said
    assert vendor.got == []


async def test_nothing_leaves_without_its_secret(pool_of: PoolOf, client: httpx.AsyncClient, vendor: Receiver) -> None:
    known = Known("127.0.0.1")
    del known.values["acme", "crm.key"]
    assert "There is no crm.key. Put it in." in (await told(pool_of, Broker(client, parts=parts(known)), vendor.url))[0]
    known.values["acme", "crm.key"] = "two\nlines"
    assert "cannot stand in a header" in (await told(pool_of, Broker(client, parts=parts(known)), vendor.url))[0]
    said = (await told(pool_of, Broker(client, parts=parts(None)), vendor.url))[0]
    assert "secrets are not sent from here" in said
    assert vendor.got == []


async def test_without_tls_it_goes_to_private_addresses_only(pool_of: PoolOf, client: httpx.AsyncClient) -> None:
    async def far(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    guard = Guard(resolve=far)
    broker = Broker(client, parts=CalloutParts(guard=guard, attempts=1, secrets=Known("api.example.com")))
    (said, _) = await told(pool_of, broker, "http://api.example.com/x")
    assert "a secret leaves by https only" in said


async def test_a_body_or_an_address_is_no_place_for_one(
    pool_of: PoolOf, client: httpx.AsyncClient, vendor: Receiver
) -> None:
    (said,) = await told(pool_of, Broker(client, parts=parts(Known("127.0.0.1"))), vendor.url, "slip")
    assert said == "a secret may stand in a header, and nowhere else"
    assert vendor.got == []


async def test_an_answer_that_cannot_be_looked_into_is_not_given(pool_of: PoolOf, client: httpx.AsyncClient) -> None:
    packed = response(200, b"\x0b\x02\x80", content_encoding="br")
    async with receiving(lambda got: packed) as vendor:
        broker = Broker(client, parts=parts(Known("127.0.0.1")))
        bench = await pool_of(APP)
        outcome = await bench.run("call", records=[{"id": "1", "url": vendor.url, "text": "x"}], broker=broker)
        assert "has a coding that was not asked for" in repr(outcome)


async def test_where_nothing_leaves_its_name_stands_for_it(pool_of: PoolOf) -> None:
    seen: list[httpx.Request] = []

    def answered(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as closed:
        broker = Broker(closed, parts=CalloutParts(guard=Guard(), attempts=1, reaches=False))
        await told(pool_of, broker, "https://api.example.com/x")
    assert seen[0].headers["authorization"] == "Bearer [secret crm.key]"
