"""What the tests of one app share: its governed processes, a server, and the loop on which both live."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from circuit_script.config import Settings, load_settings
from circuit_script.testing.databases import Databases
from circuit_script.testing.recipes import Recipe
from circuit_script.testing.uses import HandlerUse, current_test
from circuit_script.wiring.bench import Bench, open_bench
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.lines import HandlerSpec, Lines
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult

T = TypeVar("T")

KEPT = 50  # runs of one handler that are remembered
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


class TestSession:
    """One app under test. Its processes are started once; each test has a database and children of its own."""

    __test__ = False  # not a class of tests

    def __init__(self, folder: Path, lines: Lines | None = None) -> None:
        self.folder = folder.resolve()
        self.lines = lines
        self.recipes: list[Recipe] = []
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
        probes = -1 if self.lines is None else self.lines.descriptor
        try:
            self._bench: Bench = await self._stack.enter_async_context(open_bench(self.settings, probes=probes))
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

    @property
    def handlers(self) -> Sequence[HandlerSpec]:
        """Every handler of the app."""
        return self._bench.manifest.handlers

    def note(self, results: Sequence[TrialResult], recipe: Recipe) -> None:
        """Count what ran, for the report, and remember what a handler succeeded with."""
        for result in results:
            self.uses.setdefault(result.handler, HandlerUse()).add(result, current_test())
            known = sum(each.handler == result.handler for each in self.recipes)
            if result.succeeded and result.answer is None and known < KEPT:
                self.recipes.append(replace(recipe, handler=result.handler, object=result.object, event=result.event))
