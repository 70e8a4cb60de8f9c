"""A handler that wants to know a secret which it may only have sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import MAX_LINE, CalloutParts
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import Succeeded
from tests.integration.execution.callouts import Broker
from tests.integration.execution.conftest import PoolOf
from tests.receiver import Got, Receiver, receiving, response

VALUE = 'sesame\\open"now'  # which a repr and JSON write otherwise
APP = """
import json
from circuit_script.execution.session import session

@trigger("Contact", ["afterInsert"])
async def call(context):
    record = context.new_records[0]
    try:
        answer = await http.get(record["url"], headers={"x-key": record["before"] + secret("key") + record["after"]})
        log.info(answer.text)
    except Exception as error:
        log.info(f"{type(error).__name__}: {error}")

@trigger("Contact", ["afterUpdate"])
async def raw(context):
    for place in json.loads(context.new_records[0]["places"]):
        asked = {"method": "GET", "url": context.new_records[0]["url"], "headers": [["x", "y"]], "secrets": [place]}
        try:
            log.info(str(await session().request("http", asked, dict)))
        except RequestRefused as error:
            log.info(f"refused: {error}")
"""


class Known:
    """One secret, for the vendor's host."""

    async def get(self, tenant: str, name: str) -> str:
        return VALUE

    async def hosts(self, tenant: str, name: str) -> tuple[str, ...]:
        return ("127.0.0.1",)


def echo(got: Got) -> bytes:
    return response(200, json.dumps(got.headers).encode())


@pytest.fixture
async def vendor() -> AsyncIterator[Receiver]:
    async with receiving(echo) as made:
        yield made


async def told(pool_of: PoolOf, handler: str, record: dict[str, str]) -> list[str]:
    guard = Guard(private=Private.of(["127.0.0.1"]))
    async with open_client(guard) as client:
        broker = Broker(client, parts=CalloutParts(guard=guard, attempts=1, secrets=Known()))
        bench = await pool_of(APP)
        outcome = await bench.run(handler, records=[{"id": "1"} | record], broker=broker)
        assert isinstance(outcome, Succeeded), outcome
        return broker.messages


@pytest.mark.parametrize("length", [0, *range(MAX_LINE - 130, MAX_LINE - 60, 7)])
async def test_a_request_that_is_no_http_does_not_quote_it(pool_of: PoolOf, vendor: Receiver, length: int) -> None:
    """A header that ends in a space is refused by the HTTP library, which quotes it; so it may be cut in the middle."""
    (said,) = await told(pool_of, "call", {"url": vendor.url, "before": "A" * length, "after": "\t"})
    assert said.startswith("LocalProtocolError: ")
    assert "ses" not in said.partition(" ")[2]
    assert vendor.got == []


async def test_a_host_that_writes_it_otherwise_does_not_tell_it(pool_of: PoolOf, vendor: Receiver) -> None:
    (said,) = await told(pool_of, "call", {"url": vendor.url, "before": "", "after": ""})
    assert vendor.got[0].headers["x-key"] == VALUE
    assert json.loads(said)["x-key"] == "[redacted]"


async def test_a_place_that_is_none_is_refused(pool_of: PoolOf, vendor: Receiver) -> None:
    places = [[9, 0, "key"], [-1, 0, "key"], [0, -1, "key"], [1e400, 0, "key"], [0, 99, "key"], "key", [0, 0]]
    said = await told(pool_of, "raw", {"url": vendor.url, "places": json.dumps(places)})
    assert [each.partition(":")[0] for each in said] == ["refused"] * len(places)
    assert vendor.got == []
