"""What was read is remembered for a while, is asked for once at a time, and is still known when its place is away."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from circuit_script.errors import SecretsUnavailable

FRESH = 300.0  # seconds for which what was read is not asked for again
MISSING = 5.0  # seconds for which nobody asks again for what was not there
AWAY = 3600.0  # seconds after it was read, up to which a value serves while its place does not answer
AGAIN = 30.0  # seconds until a place that did not answer is asked again for what is still known
MOST = 20_000  # entries

log = structlog.get_logger()
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Known(Generic[V]):
    value: V | None
    read_at: float
    until: float


class Remembered(Generic[K, V]):
    """Answers of ``ask``, which gives None for what is not there and raises SecretsUnavailable."""

    def __init__(self, ask: Callable[[K], Awaitable[V | None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[K, _Known[V]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V | None]] = {}

    async def get(self, key: K) -> V | None:
        """What is there. Raises SecretsUnavailable."""
        known = self._known.get(key)
        if known is not None and self._clock() < known.until:
            return known.value
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._asked(key))
            task.add_done_callback(_heard)
        return await asyncio.shield(task)  # who is cancelled leaves it to the others

    def forget(self, which: Callable[[K], bool] = lambda key: True) -> None:
        """Ask again for these; an answer that is under way counts no more."""
        for key in [each for each in self._known if which(each)]:
            del self._known[key]
        for key in [each for each in self._asking if which(each)]:
            del self._asking[key]

    async def _asked(self, key: K) -> V | None:
        own = asyncio.current_task()
        begun = self._clock()
        try:
            value = await self._ask(key)
            known = _Known(value, begun, begun + (MISSING if value is None else FRESH))
        except SecretsUnavailable as error:
            before = self._known.get(key)
            if before is None or before.value is None or begun >= before.read_at + AWAY:
                raise
            log.warning("secret_served_from_memory", secret=str(key), read_seconds_ago=round(begun - before.read_at),
                        reason=error.detail)  # fmt: skip
            known = _Known(before.value, before.read_at, begun + AGAIN)
        finally:
            counts = self._asking.get(key) is own
            if counts:
                del self._asking[key]
        if counts:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return known.value


def _heard(task: asyncio.Task[V]) -> None:
    """Whoever waited may have gone."""
    if not task.cancelled():
        task.exception()
