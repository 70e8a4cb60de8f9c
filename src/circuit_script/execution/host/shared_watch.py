"""The parent's verdict on executions that share a child: on each its time, on all together CPU, memory and the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from circuit_script.execution.host.child_link import ChildLink
from circuit_script.execution.host.watch import LATER_TICK, Verdict, Watch
from circuit_script.execution.procfs import thread_states
from circuit_script.execution.protocol import NOBODY, STEPPED, TURN
from circuit_script.governor import LimitExceeded, Limits, Usage
from circuit_script.governor.limits import BLOCKED, HIGHEST

LONGEST_TURN = 1.0  # seconds that one step may keep the others of its process waiting


class Shareholder(Protocol):
    """One of those that run in the process: its share of the CPU time, how much it may have, and how many requests it
    has for which it stands still until we answer; the seconds that its steps took; how many threads work for it."""

    number: int
    cpu: float
    cpu_ceiling: float
    asks: int
    steps: float

    @property
    def began(self) -> bool: ...

    @property
    def threads(self) -> int: ...


def _nobody(_: LimitExceeded) -> None:
    """The run is over."""


class CrewWatch(Watch):
    """Looks at a child in which several run. Its CPU time is shared out equally: nobody can tell whose it was.

    ``blocker`` is the number of the run whose step keeps the loop from going on, 0 where nobody can tell. ``steps`` are
    the seconds that steps of runs have taken.
    """

    def __init__(
        self,
        link: ChildLink,
        memory: int,
        verdict: Verdict,
        running: Callable[[], Sequence[Shareholder]],
        longest_turn: float,
    ) -> None:
        self.blocker = 0
        self.steps = 0.0
        self._link = link
        self._running = running
        self._longest_turn = longest_turn
        self._shared_out = 0.0
        self._turn = -1
        self._stands = 0.0  # seconds for which the loop has not gone on
        self._cpu_then = 0.0
        self._looked = time.monotonic()
        super().__init__(link, Limits(wall_time=HIGHEST, cpu_time=HIGHEST, memory=memory), verdict)

    def look(self) -> None:
        """Measure now."""
        with suppress(OSError):
            self._last_look = self._link.extent()
            self._see(self._last_look.resident - self._link.baseline.resident)
        if (crossed := self._crossed()) is not None:
            self._verdict(crossed)

    def is_clean(self) -> bool:
        """Whether the child is as it was before all of them."""
        with suppress(OSError):
            return self._link.reusable(self._link.extent())
        return False

    def _begun(self) -> bool:
        """Who waits for another's step has not begun, and that is no sign of a child that does not listen."""
        running = self._running()
        return not running or any(each.began for each in running)

    def _crossed(self) -> LimitExceeded | None:
        crossed = super()._crossed()
        running = self._running()
        grown, self._shared_out = self.cpu_time - self._shared_out, self.cpu_time
        for each in running:
            each.cpu += grown / len(running)
        for each in running:
            if crossed is None and each.cpu > each.cpu_ceiling:
                crossed = LimitExceeded("cpu_time", each.cpu, each.cpu_ceiling)
        return crossed or self._blocked(running)

    def _blocked(self, running: Sequence[Shareholder]) -> LimitExceeded | None:
        """Whether one step keeps the others waiting. Time in which we did not look ourselves does not count."""
        moment = time.monotonic()
        gap, self._looked = min(moment - self._looked, 2 * LATER_TICK), moment
        turn, stepped = self._link.memory.word(TURN), self._link.memory.word(STEPPED)
        for each in running:
            if each.number == stepped:
                each.steps += gap
                self.steps += gap
        ours = self._link.stopped or any(each.asks for each in running)
        waits = stepped == NOBODY and not self._link.unread  # one that does not read waits for its interpreter
        if turn != self._turn or waits or ours:
            self._turn, self._stands, self._cpu_then = turn, 0.0, self._cpu
            return None
        self._stands += gap
        if self._stands < self._longest_turn or len(running) < 2:
            return None
        main, others = thread_states(self._link.pid)
        if main == "R" and self._cpu - self._cpu_then < self._longest_turn / 2:
            return None  # the machine has no time for it
        working = "R" in others or any(each.threads for each in running if each.number != stepped)
        self.blocker = 0 if main != "R" and working else stepped  # a thread may hold the interpreter, or a lock
        return LimitExceeded(BLOCKED, self._stands, self._longest_turn)


class SeatWatch:
    """Holds one of them to its wall time."""

    reusable = True  # its process is looked at when the last one has left

    def __init__(self, seat: Shareholder, limits: Limits, memory: Callable[[], int], verdict: Verdict) -> None:
        self._seat = seat
        self._ceiling = limits.wall_time
        self._memory = memory
        self._verdict = verdict
        self._started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._ceiling, self._on_time)

    def stop(self) -> None:
        """The run is over."""
        self._timer.cancel()
        self._verdict = _nobody

    def settle(self, usage: Usage, *, closely: bool = False) -> LimitExceeded | None:
        """Take the last measures into ``usage``, and say whether its time is over."""
        usage.wall_time = time.monotonic() - self._started
        usage.cpu_time, usage.memory = self._seat.cpu, self._memory()
        if usage.wall_time > self._ceiling:
            return LimitExceeded("wall_time", usage.wall_time, self._ceiling)
        return None

    def _on_time(self) -> None:
        elapsed = time.monotonic() - self._started
        if elapsed > self._ceiling:
            self._verdict(LimitExceeded("wall_time", elapsed, self._ceiling))
        else:  # the loop's clock is coarser
            self._timer = self._loop.call_later(max(0.001, self._ceiling - elapsed), self._on_time)
