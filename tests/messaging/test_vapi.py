"""Telephone calls by Vapi."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.vapi import Vapi
from tests.crm.vendor_server import Answer
from tests.messaging.stage import Stage, effect, staged
from tests.messaging.vendors import VapiVendor, oops

SETTINGS = ConnectorSettings(sender="phone-acme", senders={"birch": "phone-birch"})
VapiStage = Stage[VapiVendor, Vapi]


@pytest.fixture
async def stage() -> AsyncIterator[VapiStage]:
    async with staged(VapiVendor(), lambda parts: Vapi(parts, wait=0.01), SETTINGS) as opened:
        yield opened


def call(to: str = "+15125550142", assistant: str = "assistant-1", tenant: str = "acme", **more: Any) -> Effect:
    return effect("call", {"to": to, "assistant": assistant, **more}, tenant=tenant)


async def test_an_assistant_calls_a_number_under_the_effects_name(stage: VapiStage) -> None:
    made = call(name="Ann Ek", variables={"plan": "gold", "n": 3})
    assert await stage.done(made) == stage.vendor.calls[0]["id"]
    (found,) = stage.vendor.calls
    assert (found["assistantId"], found["phoneNumberId"], found["name"]) == ("assistant-1", "phone-acme", str(made.id))
    assert found["customer"] == {"number": "+15125550142", "name": "Ann Ek"}
    assert found["assistantOverrides"] == {"variableValues": {"plan": "gold", "n": 3}}


async def test_a_call_can_be_planned(stage: VapiStage) -> None:
    await stage.done(call(earliest="2026-12-01T10:00:00+01:00", latest="2026-12-01T12:00:00+01:00"))
    (found,) = stage.vendor.calls
    assert found["status"] == "scheduled"
    assert found["schedulePlan"] == {
        "earliestAt": "2026-12-01T10:00:00+01:00",
        "latestAt": "2026-12-01T12:00:00+01:00",
    }


async def test_each_tenant_uses_its_own_key_and_number(stage: VapiStage) -> None:
    await stage.done(call())
    await stage.done(call(assistant="assistant-2", tenant="birch"))
    assert [(each["orgId"], each["phoneNumberId"]) for each in stage.vendor.calls] == [
        ("acme", "phone-acme"),
        ("birch", "phone-birch"),
    ]
    assert isinstance(await stage.one(call(tenant="birch")), Refused)  # acme's assistant
    waits = await stage.one(call(tenant="cedar"))
    assert isinstance(waits, Later)
    assert waits.down


@pytest.mark.parametrize(
    "change",
    [
        {"to": "911"},
        {"assistant": None},
        {"assistant": "a/../b"},
        {"name": "x" * 41},
        {"variables": [1]},
        {"earliest": "soon"},
        {"latest": "2026-12-01T10:00:00Z"},
        {"earliest": "2026-12-01T10:00:00Z", "latest": "2026-12-01T09:00:00Z"},
    ],
)
async def test_what_cannot_be_a_call_is_refused_before_anybody_is_asked(
    stage: VapiStage, change: dict[str, Any]
) -> None:
    assert isinstance(await stage.one(effect("call", {**call().payload, **change})), Refused)
    assert stage.vendor.requests == []


@pytest.mark.parametrize(
    ("answer", "kind", "after"),
    [
        (oops(400, "customer.number must be valid"), Refused, None),
        (oops(400, "Over Concurrency Limit"), SlowDown, 20.0),
        (oops(400, "Wallet Balance Insufficient"), SlowDown, 1800.0),
        (oops(401, "Unauthorized"), Later, None),
        (oops(402, "Payment Required"), SlowDown, 1800.0),
        (oops(403, "Forbidden"), Refused, None),
        (oops(404, "Not Found"), Refused, None),
        (oops(422, "Unprocessable"), Refused, None),
        (oops(429, "Too Many Requests"), SlowDown, None),
        (oops(500, "Internal"), Unknown, None),
        (Answer(502, b"bad gateway", kind="text/plain"), Unknown, None),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else None,
)
async def test_every_error_means_what_the_table_says(
    stage: VapiStage, answer: Answer, kind: type[Delivery], after: float | None
) -> None:
    stage.vendor.wrongs.append(answer)
    result = await stage.one(call())
    assert isinstance(result, kind)
    assert getattr(result, "after", None) == after
    assert "vapi-key" not in result.reason  # type: ignore[union-attr]  # none of them is Delivered


async def test_the_eleventh_call_at_once_waits_here(stage: VapiStage) -> None:
    for _ in range(10):
        await stage.done(call())
    waits = await stage.one(call())
    assert isinstance(waits, SlowDown)
    assert len(stage.vendor.heard("POST")) == 10
    await stage.done(call(earliest="2026-12-01T10:00:00Z"))  # which is not now
    stage.vendor.calls[3]["status"] = "ended"
    await stage.done(call())
    assert isinstance(await stage.one(call()), SlowDown)


async def test_a_call_whose_answer_was_lost_is_found_by_its_name(stage: VapiStage) -> None:
    lost = call()
    stage.vendor.fail_next("drop_after")
    assert isinstance(await stage.one(lost), Unknown)
    await stage.done(call())
    assert await stage.connector.look_up(lost) == Delivered(stage.vendor.calls[0]["id"])
    assert len(stage.vendor.heard("POST")) == 2


async def test_a_call_that_was_never_made_may_be_made_again(stage: VapiStage) -> None:
    lost = call()
    stage.vendor.fail_next("drop_before")
    await stage.one(lost)
    assert isinstance(await stage.connector.look_up(lost), Later)


async def test_a_list_that_cannot_be_had_says_nothing(stage: VapiStage) -> None:
    stage.vendor.fail_next("500")
    assert await stage.connector.look_up(call()) is None
    stage.vendor.contract._app = None  # it is none of the contract's
    for body in (b"<html>", {"calls": []}):
        stage.vendor.wrongs.append(Answer(200, body))
        assert await stage.connector.look_up(call()) is None
