"""GoHighLevel as it answers over HTTP, on this machine: for tests, for the demo, and for trying an app without an
account.

    with running() as vendor:
        vendor.url            # http://127.0.0.1:…
        vendor.token          # a private token of vendor.location
        vendor.world.contact(vendor.location, {"email": "ada@example.com"})

It knows contacts, opportunities, conversations and messages, calendars and appointments, notes, tasks, tags, custom
fields, locations and tokens, keeps to the vendor's limits, and sends signed webhooks. It is no copy of the vendor: what
its published contract and its documentation say is here, as far as our connector uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from circuit_script.testing.stand_ins.gohighlevel import shapes
from circuit_script.testing.stand_ins.gohighlevel.access import Tokens
from circuit_script.testing.stand_ins.gohighlevel.contract import Contract
from circuit_script.testing.stand_ins.gohighlevel.door import Door, Heard, How
from circuit_script.testing.stand_ins.gohighlevel.limits import Limits
from circuit_script.testing.stand_ins.gohighlevel.webhooks import Webhooks
from circuit_script.testing.stand_ins.gohighlevel.world import Doc, World

LOCATION = "ve9EPM428h8vShlRW1KT"
COMPANY = "company1"
LONGEST_START = 10.0  # seconds

__all__ = ["COMPANY", "LOCATION", "GoHighLevelStandIn", "Heard", "contract_of", "running"]


@dataclass(slots=True)
class GoHighLevelStandIn:
    """All of its parts. ``skew`` are seconds that its clock is ahead: tokens end by it."""

    location: str = LOCATION
    window: float = 10.0
    contract: Contract | None = None
    url: str = ""
    skew: float = 0.0
    world: World = field(init=False)
    tokens: Tokens = field(init=False)
    limits: Limits = field(init=False)
    webhooks: Webhooks = field(init=False)
    door: Door = field(init=False)
    token: str = field(init=False, repr=False)
    _loop: asyncio.AbstractEventLoop | None = None
    _sending: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.webhooks = Webhooks()
        self.world = World(clock=self.clock, changed=self._changed)
        self.world.location(self.location, company=COMPANY)
        self.tokens = Tokens(self.clock, _Companies(self.world))
        self.limits = Limits(time.monotonic, window=self.window)
        self.door = Door(self.world, self.tokens, self.limits, self.contract)
        self.token = self.tokens.private(self.location)

    def clock(self) -> float:
        return time.time() + self.skew

    def fail_next(self, how: How, times: int = 1) -> None:
        """What becomes of the next requests: 429, 500, 401, or a connection that is cut before or after it was done."""
        self.door.fail_next(how, times)

    @property
    def heard(self) -> list[Heard]:
        return self.door.heard

    @property
    def violations(self) -> list[str]:
        """Where its traffic does not fit the vendor's contract; empty, too, where that is not at hand."""
        return [] if self.contract is None else self.contract.violations

    def _changed(self, kind: str, doc: Doc, by_api: bool) -> None:
        if not self.webhooks.url or (by_api and not self.webhooks.echoes):
            return
        self.webhooks.add(shapes.webhook(kind, doc), self.world.now())
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self.webhooks.flush())

    async def serve(self, host: str = "127.0.0.1", port: int = 0, started: threading.Event | None = None) -> None:
        """Answer until told to end."""
        config = uvicorn.Config(self.door, host, port, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        self._server = server = _Server(config)
        self._loop = asyncio.get_running_loop()
        server.told = lambda found: self._started(f"http://{host}:{found}", started)
        await server.serve()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    _server: Any = None

    def _started(self, url: str, started: threading.Event | None) -> None:
        self.url = url
        if started is not None:
            started.set()

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True


class _Server(uvicorn.Server):
    told: Any = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.servers:
            self.told(self.servers[0].sockets[0].getsockname()[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In a thread there is nothing to capture; the process's own handlers stay."""
        if threading.current_thread() is threading.main_thread():
            with super().capture_signals():
                yield
        else:
            yield


class _Companies(dict[str, str]):
    """Each location's company."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, key: str, default: Any = None) -> Any:
        found = self._world.locations.get(key)
        return default if found is None else found["companyId"]


def contract_of(shared: str | None = None) -> Contract | None:
    """The vendor's contract, where CIRCUIT_SHARED names the folder that has it and openapi-core is there."""
    root = shared or os.environ.get("CIRCUIT_SHARED")
    folder = Path(root or "", "specs", "ghl", "apps")
    if not root or not folder.is_dir():
        return None
    try:
        import openapi_core  # noqa: F401
    except ImportError:
        return None
    return Contract(folder)


@contextlib.contextmanager
def running(*, port: int = 0, **settings: Any) -> Iterator[GoHighLevelStandIn]:
    """One that answers on a loopback port, in a thread of its own, until the block ends."""
    vendor = GoHighLevelStandIn(**{"contract": contract_of(), **settings})
    started = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(vendor.serve(port=port, started=started)), name="gohighlevel stand-in", daemon=True
    )
    thread.start()
    if not started.wait(LONGEST_START):
        raise RuntimeError("the stand-in did not start")
    try:
        yield vendor
    finally:
        vendor.stop()
        thread.join(LONGEST_START)
