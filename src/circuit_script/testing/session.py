"""What the tests of one app share: its governed processes, a server, and the loop on which both live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from circuit_script.config import Settings, load_settings
from circuit_script.testing.databases import Databases
from circuit_script.wiring.bench import Bench, open_bench
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult

T = TypeVar("T")

NOT_MOCKED = "it is not mocked in this test (circuit.mock_callout)"


class Loop:
    """An event loop in a thread of its own, so that plain functions can wait for what runs on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="circuit test", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and return its result; interrupted, it is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(slots=True)
class HandlerUse:
    """How the tests used one handler: how often it ran, and the most that one execution used of each limit."""

    runs: int = 0
    records: int = 0
    usage: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)

    def add(self, result: TrialResult) -> None:
        self.runs += sum(batch.status != "held" for batch in result.batches)
        self.records += len(result.records) - len(result.held)
        for name, value in result.usage.items():
            self.usage[name] = max(value, self.usage.get(name, 0))
        for name, value in result.ceilings.items():
            self.ceilings[name] = max(value, self.ceilings.get(name, 0))


class TestSession:
    """One app under test. Its processes are started once; each test has a database and children of its own."""

    __test__ = False  # not a class of tests

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.loop = Loop()
        self.uses: dict[str, HandlerUse] = {}
        self._stack = contextlib.AsyncExitStack()
        try:
            self.loop.wait(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        self.settings: Settings = load_settings(self.folder)
        databases = Databases(self.settings.state)
        self._stack.push_async_callback(databases.stop)
        starting = asyncio.create_task(databases.start())
        try:
            self._bench: Bench = await self._stack.enter_async_context(open_bench(self.settings))
        finally:
            await asyncio.wait({starting})
        await starting
        self._databases = databases
        self.uses |= {spec.name: HandlerUse() for spec in self._bench.manifest.handlers}

    def close(self) -> None:
        self.loop.wait(self._stack.aclose())
        self.loop.close()

    @contextlib.contextmanager
    def trial(self, callouts: Callouts) -> Iterator[Trial]:
        """A trial on a fresh database, with children that have served nobody."""
        stack = contextlib.AsyncExitStack()

        async def opened() -> Trial:
            url = await self._databases.fresh()
            stack.callback(self._databases.give_back, url)
            trial = Trial(self.settings, url, bench=self._bench, callouts=callouts, keep_logs=False, source="test")
            stack.callback(self._bench.children.renew)
            return await stack.enter_async_context(trial)

        try:
            yield self.loop.wait(opened())
        finally:
            self.loop.wait(stack.aclose())

    def note(self, results: Sequence[TrialResult]) -> None:
        """Count what ran, for the report."""
        for result in results:
            self.uses.setdefault(result.handler, HandlerUse()).add(result)

    def report(self, folder: Path) -> None:
        """Write what was counted, beside the reports of other processes of this session."""
        found = {
            name: {"runs": use.runs, "records": use.records, "usage": use.usage, "ceilings": use.ceilings}
            for name, use in self.uses.items()
        }
        (folder / f"{os.getpid()}-{id(self)}.json").write_text(json.dumps(found), "utf-8")
