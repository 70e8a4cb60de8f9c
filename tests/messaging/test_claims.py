"""Whose a message is that a vendor has sent, by what the database knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Effect
from circuit_script.connectors.messengers import Claims
from tests.messaging.stage import effect
from tests.road import Road, open_road

MADE = """
INSERT INTO circuit.effects (id, tenant, execution, release, lane, order_hash, connector, operation, target, payload,
                             status, vendor_id)
VALUES (%s, %s, %s, 1, 0, 0, %s, 'sms', 'usual', '{}', 'delivered', %s)
"""


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as opened:
        yield opened


async def test_what_another_effect_has_told_is_not_this_ones(road: Road) -> None:
    this = effect("sms", {})

    async def tell(other: Effect, vendor_id: str, connector: str = "twilio") -> None:
        await road.run(MADE, other.id, other.tenant, uuid7(), connector, vendor_id)

    await tell(effect("sms", {}), "SM1")
    await tell(this, "SM2")
    await tell(effect("sms", {}, tenant="birch"), "SM3")
    await tell(effect("sms", {}), "SM4", connector="resend")
    claims = Claims("twilio", road.pool)
    found = await claims.free(this, ["SM1", "SM2", "SM3", "SM4", "SM5", "SM5"])
    assert found == ["SM2", "SM3", "SM4", "SM5"]

    claims.claim(effect("sms", {}), "SM5")
    claims.claim(this, "SM4")
    assert await claims.free(this, found) == ["SM2", "SM3", "SM4"]


async def test_one_message_is_not_two_effects_which_look_at_once(road: Road) -> None:
    claims = Claims("twilio", road.pool)

    async def look(one: Effect) -> list[str]:
        return [each for each in await claims.free(one, ["SM1"]) if claims.claim(one, each)]

    found = await asyncio.gather(*(look(effect("sms", {})) for _ in range(4)))
    assert sorted(found) == [[], [], [], ["SM1"]]


async def test_a_message_that_another_has_meanwhile_is_not_free(road: Road) -> None:
    claims, first, second = Claims("twilio", road.pool), effect("sms", {}), effect("sms", {})
    asked = asyncio.create_task(claims.free(second, ["SM1"]))
    await asyncio.sleep(0)  # it asks the database now
    assert claims.claim(first, "SM1")
    assert await asked == []
