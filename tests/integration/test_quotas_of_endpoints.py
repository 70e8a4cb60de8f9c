"""A tenant over its quota calls an endpoint: it hears which quota, when it begins anew, and how to get more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.config import TenantSettings, TierQuota, TierSettings
from circuit_script.db.pool import open_pool
from circuit_script.execution.outcome import Failed, Outcome, Work
from circuit_script.tenants import Tiers
from circuit_script.tenants.entitlement import Notice
from circuit_script.tenants.quotas import TenantGovernor
from tests.doors import Post, answer, endpoint, open_post
from tests.gateways import running
from tests.loopback import NOBODY

TIERS = Tiers(
    {"own": TierSettings(executions=TierQuota(day=2), upgrade="https://example.com/plans")},
    {"acme": TenantSettings(tier="own")},
)

Fixture = tuple[Post, httpx.AsyncClient]


async def handle(work: Work, broker: Any) -> None:
    answer(broker, 200, {"tenant": work.tenant})


async def unheard(notice: Notice) -> None:
    """Notices are another test's."""


@pytest.fixture
async def gateway(database: str, app_folder: Path) -> AsyncIterator[Fixture]:
    async with AsyncExitStack() as stack:
        pool = await open_pool(database, min_size=1, max_size=2, name="test quotas")
        stack.push_async_callback(pool.close)
        governor = TenantGovernor(database=pool, tiers=TIERS, worker=uuid7(), notify=unheard)
        task = asyncio.create_task(governor.run())
        stack.push_async_callback(asyncio.wait, {task})
        stack.callback(governor.stop)
        post = await stack.enter_async_context(open_post(database, app_folder, handle, quotas=governor))
        await post.live(endpoint("chat"))
        inner = running(database, app_folder)
        port = await asyncio.to_thread(inner.__enter__)
        # In a thread: the gateway's end waits for calls that the door, in this loop, must still answer.
        stack.push_async_callback(asyncio.to_thread, inner.__exit__, None, None, None)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, verify=NOBODY)
        yield post, await stack.enter_async_context(client)


async def test_over_its_quota_a_caller_gets_429_with_the_reset_and_the_way_to_more(gateway: Fixture) -> None:
    post, client = gateway
    key = await post.key("acme")
    assert [(await client.post("/api/chat", headers=key)).status_code for _ in range(2)] == [200, 200]

    told = await client.post("/api/chat", headers={**key, "idempotency-key": "k1"})

    midnight = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert told.status_code == 429
    assert told.headers["content-type"] == "application/problem+json"
    assert abs(int(told.headers["retry-after"]) - (midnight - datetime.now(UTC)).total_seconds()) < 30
    problem = told.json()
    assert (problem["type"], problem["reason"]) == ("/problems/quota-exceeded", "quota")
    assert problem["detail"] == (
        "The quota of executions a day is used up: 2 of 2 (tier own). "
        f"It begins anew at {midnight:%Y-%m-%d} 00:00 UTC. For more: https://example.com/plans Nothing was executed."
    )
    assert len(post.children.works) == 2
    assert await post.rows("SELECT count(*) FROM circuit.idempotency") == [0], "its key is free again"


async def test_a_call_that_the_platform_lost_does_not_count(gateway: Fixture) -> None:
    post, client = gateway
    key = await post.key("acme")

    async def lose(work: Work, broker: Any) -> Outcome:
        return Failed("its process was lost", broker.usage, blameless=True)

    post.children.handler = lose
    assert [(await client.post("/api/chat", headers=key)).status_code for _ in range(3)] == [503] * 3

    post.children.handler = handle
    assert [(await client.post("/api/chat", headers=key)).status_code for _ in range(3)] == [200, 200, 429]


async def test_an_answer_that_is_repeated_does_not_count_and_others_have_no_quota(gateway: Fixture) -> None:
    post, client = gateway
    key = await post.key("acme")
    for _ in range(5):
        told = await client.post("/api/chat", headers={**key, "idempotency-key": "same"})
        assert told.status_code == 200
    assert (await client.post("/api/chat", headers=key)).status_code == 200
    assert (await client.post("/api/chat", headers=key)).status_code == 429

    others = await post.key("globex")
    assert [(await client.post("/api/chat", headers=others)).status_code for _ in range(5)] == [200] * 5
