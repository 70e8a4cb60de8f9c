"""The parent's verdict on time, CPU and memory of one running execution."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from circuit_script.execution.host.child_link import ChildLink
from circuit_script.execution.procfs import Extent, cpu_time, cpu_time_of_ended, descendants_of, memory_of
from circuit_script.governor import MB, LimitExceeded, Limits, Usage

TICK = 0.01
LATER_TICK = 0.02  # once it has run for a second
CLOSE_LOOK = 5  # every so many ticks also what hides: memfds; each tick, while there are processes below the child
MAX_PROCESSES = 64  # below a child
DEAF = 0.5  # seconds in which a child that has served others begins
SUSPICIOUS = 16 * MB  # of mapped files or shared memory: only a close look tells the one from the other

Verdict = Callable[[LimitExceeded], None]


class Watching(Protocol):
    """Who watches an execution, from its start to its end."""

    def stop(self) -> None: ...

    def settle(self, usage: Usage, *, closely: bool = False) -> LimitExceeded | None: ...

    @property
    def reusable(self) -> bool: ...


def _nobody(_: LimitExceeded) -> None:
    """The run is over."""


class Watch:
    """Looks at a child from the start of its run to its end, and says when it crosses a limit."""

    def __init__(self, child: ChildLink, limits: Limits, verdict: Verdict) -> None:
        self._child = child
        self._limits = limits
        self._verdict = verdict
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()  # finer than the time of uvloop
        self._cpu_before = cpu_time(child.pid)
        self._cpu = 0.0
        self._below: dict[int, float] = {}
        self._cpu_below = 0.0
        self._processes = 0
        self._ticks = 0
        self._last_look: Extent | None = None
        self.memory = 0
        self.wall_time = self.cpu_time = 0.0
        self._timer = self._loop.call_later(min(TICK, limits.wall_time), self._tick)

    def stop(self) -> None:
        """The run is over."""
        self._timer.cancel()
        self._verdict = _nobody  # who listened holds this watch: together they would wait for the garbage collector

    def settle(self, usage: Usage, *, closely: bool = False) -> LimitExceeded | None:
        """Take the last measures into ``usage``, and say whether one is over its limit."""
        if closely:
            self._look_closely()
        with suppress(OSError):
            self._last_look = self._child.extent()
            self._see(self._last_look.resident - self._child.baseline.resident)
        crossed = self._crossed()
        usage.wall_time, usage.cpu_time, usage.memory = self.wall_time, self.cpu_time, self.memory
        return crossed

    @property
    def reusable(self) -> bool:
        """Whether the child was clean at the last measure."""
        return self._last_look is not None and self._child.reusable(self._last_look)

    def _tick(self) -> None:
        self._ticks += 1
        begun = self._begun()
        with suppress(OSError):
            extent = self._child.extent()
            self._see(extent.resident - self._child.baseline.resident)
            mapped = extent.mapped - self._child.baseline.mapped
            if self._ticks % CLOSE_LOOK == 0 or extent.parent or mapped > SUSPICIOUS:
                self._look_closely()
        if (crossed := self._crossed()) is not None:
            return self._verdict(crossed)
        if self.wall_time > min(DEAF, self._limits.wall_time / 2) and self._child.reused and not begun:
            return self._child.kill("it does not listen")  # it still does what it said was over: run this elsewhere
        pause = TICK if self.wall_time < 1 else LATER_TICK
        left = max(0.0, self._limits.wall_time - self.wall_time)
        self._timer = self._loop.call_later(min(pause, left), self._tick)

    def _begun(self) -> bool:
        return self._child.began

    def _look_closely(self) -> None:
        below = descendants_of(self._child.pid, MAX_PROCESSES + 1)
        self._processes = len(below)
        if self._processes > MAX_PROCESSES:
            return
        baseline = self._child.baseline.resident
        self._see(sum(max(0, memory_of(pid) - baseline) for pid in (self._child.pid, *below)))
        for pid in below:
            self._below[pid] = max(cpu_time(pid), self._below.get(pid, 0.0))
        # Two lower bounds: those seen alive; and those waited for, with those that live. Each counts nothing twice.
        ended = cpu_time_of_ended(self._child.pid) + sum(self._below[pid] + cpu_time_of_ended(pid) for pid in below)
        self._cpu_below = max(self._cpu_below, sum(self._below.values()), ended)

    def _see(self, memory: int) -> None:
        self.memory = max(self.memory, memory)

    def _crossed(self) -> LimitExceeded | None:
        self.wall_time = time.monotonic() - self._started
        self._cpu = max(self._cpu, cpu_time(self._child.pid) - self._cpu_before)  # a dead one has no clock any more
        self.cpu_time = self._cpu + self._cpu_below
        limits = self._limits
        if self.wall_time > limits.wall_time:
            return LimitExceeded("wall_time", self.wall_time, limits.wall_time)
        if self.cpu_time > limits.cpu_time:
            return LimitExceeded("cpu_time", self.cpu_time, limits.cpu_time)
        if self.memory > limits.memory:
            return LimitExceeded("memory", self.memory, limits.memory)
        if self._processes > MAX_PROCESSES:
            return LimitExceeded("processes", self._processes, MAX_PROCESSES)
        return None
