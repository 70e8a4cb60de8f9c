"""A call is held to what the release asks that runs it, not to the one that was live when it arrived."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_script.endpoints.client import Link
from circuit_script.endpoints.protocol import Answer, Call
from circuit_script.execution.outcome import HttpRequest, Outcome, Work
from tests.doors import Post, answer, endpoint, open_post


def call(tenant: str = "default", method: str = "POST", auth: str = "none") -> Call:
    return Call("chat", tenant, HttpRequest(method, "/api/chat", "", (), b""), auth=auth)


@pytest.mark.parametrize(
    ("waiting", "live", "status"),
    [
        (call(), endpoint("chat", auth="key"), 503),
        (call("acme"), endpoint("chat", auth="key"), 200),
        (call(auth="key"), endpoint("chat", auth="key"), 200),
        (call(), endpoint("chat", "GET", auth="none"), 405),
        (call(), endpoint("other", auth="none"), 404),
        (call(), endpoint("chat", auth="none"), 200),
    ],
)
async def test_a_call_that_waited_is_held_to_the_release_that_is_live_by_then(
    database: str, app_folder: Path, waiting: Call, live: object, status: int
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(work: Work, broker: object) -> Outcome | None:
        begun.set()
        await go.wait()
        answer(broker)  # type: ignore[arg-type]  # the door's own
        return None

    async with open_post(database, app_folder, handler, places=1) as post:
        await post.live(endpoint("chat", auth="none"))
        async with Link(app_folder / ".circuit" / "worker.sock") as link:
            assert await link.wait(5)
            first = asyncio.create_task(link.call(call()))
            await begun.wait()
            second = asyncio.create_task(link.call(waiting))
            await in_line(post)
            await post.live(live)  # type: ignore[arg-type]  # a HandlerSpec
            go.set()
            await first
            told = await second
    assert isinstance(told, Answer)
    assert told.status == status
    assert len(post.children.works) == (2 if status == 200 else 1)


async def in_line(post: Post) -> None:
    """Until a call waits for its place."""
    async with asyncio.timeout(5):
        while not post.answerer._line.waiting:
            await asyncio.sleep(0.01)
