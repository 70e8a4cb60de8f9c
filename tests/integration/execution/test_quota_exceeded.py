"""A callout that its tenant's quota does not allow, as a handler in a real child hears of it."""

from __future__ import annotations

from dataclasses import replace

import httpx

from circuit_script.errors import QuotaExceeded
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.outcome import Failed, Succeeded
from tests.integration.execution.callouts import Broker
from tests.integration.execution.conftest import PoolOf
from tests.loopback import NOBODY

APP = """
@trigger("Contact", ["afterInsert"])
async def caught(context):
    try:
        await http.get("http://127.0.0.1:9/")
    except QuotaExceeded as error:
        log.info(f"{error.retry_after:g} {isinstance(error, CalloutRefused)} {error}")

@trigger("Contact", ["afterInsert"])
async def left_alone(context):
    await http.get("http://127.0.0.1:9/")

@trigger("Contact", ["afterInsert"])
async def in_its_record(context):
    async with context.record(context.new_records[0]):
        await http.get("http://127.0.0.1:9/")
"""


def broker(client: httpx.AsyncClient, *, defer: bool = False, at_ceiling: str | None = None) -> Broker:
    async def none_left(tenant: str) -> None:
        error = QuotaExceeded("5 of 5 are used.", cure="For more: https://x", retry_after=600.0)
        error.defer = defer
        raise error

    made = Broker(client, parts=CalloutParts(spend=none_left))
    made._outside._work = replace(made._outside._work, at_ceiling=at_ceiling)
    return made


async def test_it_has_its_name_and_left_alone_it_is_a_failure_that_says_so(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    async with httpx.AsyncClient(verify=NOBODY) as client:
        asked = broker(client)
        assert isinstance(await bench.run("caught", broker=asked), Succeeded)
        assert asked.messages == ["600 True The tenant's quota is used up. 5 of 5 are used. For more: https://x"]

        outcome = await bench.run("left_alone", broker=broker(client))

    assert isinstance(outcome, Failed)
    assert "The tenant's quota is used up. 5 of 5 are used." in outcome.reason


async def test_where_the_policy_is_to_defer_the_record_waits_for_the_quota(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    async with httpx.AsyncClient(verify=NOBODY) as client:
        for handler in ("left_alone", "in_its_record"):
            for defer, at_ceiling in ((True, None), (False, "defer")):
                asked = broker(client, defer=defer, at_ceiling=at_ceiling)
                outcome = await bench.run(handler, broker=asked)
                assert isinstance(outcome, Succeeded)
                assert 600.0 <= (outcome.decided[0] or 0) <= 900.0
                assert outcome.decided[0] in asked.put_off, "by this the road knows what it waits for"
                assert "5 of 5 are used." in outcome.errors[0]

        outcome = await bench.run("left_alone", broker=broker(client, defer=True, at_ceiling="refuse"))
        assert isinstance(outcome, Failed), "the handler's word goes before its tier's"
