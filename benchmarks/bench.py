"""What every group of figures is given: the server, the vendor, sizes, a place for files, and the progress bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks import postgres
from benchmarks.contestants import Contestant
from benchmarks.load import Result, closed_loop, request
from benchmarks.processes import until
from circuit_script.cli.demo.vendor import Payload, Vendor

PATH = "/webhooks/gohighlevel"
SEED = 20_240
LOCATION = "Ve4kW0pTq8dLr2sXnB7a"


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of a whole road. ``rate`` in events per second, ``load`` what the generator saw."""

    events: int
    seconds: float
    load: Result

    @property
    def rate(self) -> float:
        return self.events / self.seconds


@dataclass(slots=True)
class Bench:
    """One run of the benchmark. ``server`` is the URL of the PostgreSQL that all contestants share."""

    quick: bool
    folder: Path
    server: str
    console: Console
    progress: Progress
    task: TaskID
    vendor: Vendor = field(default_factory=lambda: Vendor(seed=SEED, location=LOCATION, now=datetime.now(UTC)))
    _databases: int = 0

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def says(self, what: str) -> None:
        """Show what is being measured now."""
        self.progress.update(self.task, description=what)

    async def database(self) -> str:
        """A fresh database on the shared server."""
        self._databases += 1
        return await postgres.fresh_database(self.server, f"bench_{self._databases}")

    def place(self, name: str) -> Path:
        """A new folder for one contestant."""
        folder = self.folder / f"{name}{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return folder

    def contacts(self, count: int, locations: Sequence[str] = ()) -> list[bytes]:
        """``count`` signed ContactCreate requests, of the given locations in turn."""
        made = []
        for index in range(count):
            fields = {"locationId": locations[index]} if locations else {}
            made.append(self.request({"type": "ContactCreate", **self.vendor.contact(**fields)}))
        return made

    def request(self, payload: Payload) -> bytes:
        signed = self.vendor.webhook(payload)
        return request(PATH, signed.headers, signed.body)

    async def intake(self, contestant: Contestant, requests: Sequence[bytes]) -> Result:
        """How fast it acknowledges, at 64 connections."""
        result = await closed_loop(contestant.port, requests, connections=64)
        _all_accepted(result, len(requests))
        return result

    async def road(self, contestant: Contestant, requests: Sequence[bytes], *, seconds: float = 120) -> Run:
        """How fast events go from the first byte sent to the last outcome's commit."""
        before, _ = await contestant.finished()
        began = time.time()
        load = await self.intake(contestant, requests)
        reached = (0, 0.0)

        async def all_done() -> bool:
            nonlocal reached
            reached = await contestant.finished()
            return reached[0] >= before + len(requests)

        await until(all_done, seconds=seconds, what="the end of the road", every=0.05)
        return Run(len(requests), reached[1] - began, load)


def _all_accepted(result: Result, count: int) -> None:
    if result.statuses[202] != count:
        raise RuntimeError(f"not every delivery was accepted: {dict(result.statuses)}")
