"""A candidate that misbehaves: it is stopped, what it did reaches nobody, and the next recording is compared."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.events.recordings import Ended, Recording
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.releases.shadows import DIFFERENT, INCOMPARABLE, SAME, Settled
from circuit_script.wiring.children import make_children
from circuit_script.wiring.shadow_run import ShadowParts, run_recording
from circuit_script.wiring.shadowing import settled_of
from tests.receiver import receiving, response
from tests.road import Road, happens, open_road

APP = """
import os, signal, socket, time, urllib.request
from circuit_script import http, trigger

@trigger("Contact", ["afterInsert"], limits={"wall_time": 1.0})
async def score(context):
    for contact in context.new_records:
        how, port = contact.get("how"), contact.get("port")
        if how == "loops":
            while True:
                pass
        if how == "allocates":
            held = [b"x" * 1_000_000 for _ in range(100_000)]
        if how == "leaves":
            os._exit(3)
        if how == "kills its host":
            os.kill(os.getppid(), signal.SIGKILL)
        if how == "forks":
            for _ in range(20):
                if (forked := os.fork()) == 0:
                    while True:
                        time.sleep(0.01)
                with open(contact["told"], "a") as told:
                    print(forked, file=told)
        if how == "urllib":
            urllib.request.urlopen(f"http://127.0.0.1:{port}/urllib", timeout=1).read()
        if how == "socket":
            with socket.create_connection(("127.0.0.1", port), timeout=1) as there:
                there.sendall(b"GET /socket HTTP/1.1\\r\\n\\r\\n")
        if how == "http":
            await http.get(f"http://127.0.0.1:{port}/http")
"""
ENDS = {"forks": SAME, "urllib": INCOMPARABLE, "socket": INCOMPARABLE, "http": INCOMPARABLE}
HOWS = ("loops", "allocates", "leaves", "kills its host", "forks", "urllib", "socket", "http")


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


def given(how: str, port: int, told: Path) -> Recording:
    return Recording(
        uuid7(), 1, "acme", "score", "Contact", "afterInsert", Ended("succeeded"),
        [{"id": "c1", "how": how, "port": port, "told": str(told)}], [None], [{"id": 1}], [None],
    )  # fmt: skip


async def test_whatever_a_candidate_does_reaches_nobody_and_the_next_is_compared(road: Road, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "triggers.py").write_text(textwrap.dedent(APP))
    settings = Settings(folder=tmp_path)
    few: dict[str, Any] = {"children": 1, "endpoint_children": 1}
    children = make_children(settings.model_copy(update={"worker": settings.worker.model_copy(update=few)}))
    parts = ShadowParts(
        settings=settings, database=road.pool, governor=CircuitGovernor.of_settings(settings), rules=CalloutParts(),
        knows=lambda *_: True, declared=lambda *_: None, home=lambda *_: "local", judgment=None,
    )  # fmt: skip
    try:
        handlers = {each.name: each for each in (await children.start()).handlers}
        async with receiving(lambda got: response(200, b"")) as vendor:
            port = int(vendor.url.rpartition(":")[2])
            for how in HOWS:
                settled = await compared(given(how, port, told), handlers, parts, children)
                assert settled.state == ENDS.get(how, DIFFERENT), (how, settled)
                assert (await compared(given("", port, told), handlers, parts, children)).state == SAME, how
            assert vendor.got == []
            forked = [Path("/proc") / line for line in told.read_text().split()]
            assert len(forked) == 20
            await happens(lambda: not any(map(Path.exists, forked)), "what it forked is ended, too")
    finally:
        await children.stop()
    assert await road.rows("SELECT count(*) FROM circuit.executions") == [0]


async def compared(
    recording: Recording, handlers: dict[str, HandlerSpec], parts: ShadowParts, children: Children
) -> Settled:
    return settled_of(recording, await run_recording(recording, handlers, parts, children), ())
