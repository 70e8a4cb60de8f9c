"""Fixtures: `pool_of(source)` starts a pool over a tiny app; `Recorder` is a broker that remembers."""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import RequestRefused
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.host.zygote_link import USUAL
from circuit_script.execution.nursery import Hosting
from circuit_script.execution.outcome import Fields, Outcome, PlainVerdict, Work
from circuit_script.governor import LimitExceeded, Limits, Usage

HEADER = "from circuit_script import *\nimport asyncio, os, sys, time\n"


class Recorder:
    """A broker that remembers what it was asked, and refuses or limits on demand."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[dict[str, Any]] = []

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        self.asked.append((verb, arguments))
        match verb:
            case "dml":
                return {"ids": [str(row.get("id")) for row in arguments["rows"]]}
            case "query":
                return [{"id": "7", "name": "Ada"}]
            case "get":
                return [None if key == "gone" else {"id": key} for key in arguments["ids"]]
            case "http":
                return {"status": 200, "headers": {"x": "y"}, "body": b'{"answer": 42}'}
            case "send":
                return {"id": "effect-1"}
            case "connect":
                self.usage.callouts += 1
                if self.usage.callouts > 2:
                    raise LimitExceeded("callouts", self.usage.callouts, 2)
                return None
        raise RequestRefused(f"there is no request {verb!r}.")

    def log(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]


class Bench:
    """A pool under test."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.changes = 0
        self.hides = True  # settings are out of the handlers' sight
        self.of_the_zygote: set[int] = set()  # processes that are no children

    async def run(
        self,
        handler: str,
        *,
        records: Sequence[Fields] = ({"id": "1"},),
        old: Sequence[Fields | None] | None = None,
        tenant: str = "acme",
        share: bool = False,
        concurrency: int = 1,
        broker: Any = None,
        verdicts: Mapping[int, Mapping[str, PlainVerdict]] | None = None,
        **limits: Any,
    ) -> Outcome:
        work = Work(
            execution=uuid7(),
            handler=handler,
            tenant=tenant,
            object="Contact",
            event="afterInsert",
            records=records,
            old=old or [None] * len(records),
            events=[{"raw": record.get("id")} for record in records],
            limits=Limits(**limits),
            started_at=time.time(),
            share_child=share,
            concurrency=concurrency,
            verdicts=verdicts or {},
        )
        return await asyncio.wait_for(self.pool.run(work, broker or Recorder()), 20)


PoolOf = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def pool_of(tmp_path: Path) -> AsyncIterator[PoolOf]:
    started: list[Pool] = []

    async def make(source: str, *, size: int = 2, hosting: Hosting = USUAL, **options: Any) -> Bench:
        (tmp_path / "app.py").write_text(HEADER + textwrap.dedent(source))
        bench: Bench
        pool = Pool(app_folder=tmp_path, app="app", size=size, on_change=lambda: changed(), hosting=hosting, **options)
        started.append(pool)
        bench = Bench(pool)

        def changed() -> None:
            bench.changes += 1

        await pool.start()
        return bench

    yield make
    for pool in started:
        processes = [pool.zygote_pid, *(child.pid for child in pool.children)]
        await asyncio.wait_for(pool.stop(), 5)
        await until(partial(_all_dead, processes))


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _all_dead(processes: Sequence[int]) -> bool:
    return not any(map(alive, processes))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
