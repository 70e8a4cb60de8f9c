"""Keeps to a vendor's limit of requests, so that it never has to answer 429: reads and writes of an account share it.

A place in the window is taken when a request leaves and is free again a window's length after its answer came. So the
vendor sees no more requests than it allows in any stretch of that length, wherever its own windows begin and however
long a request was on its way. What others (another worker, the vendor's own apps) have used is known from its headers.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CAUTIOUS = 10  # requests under way at once, before the first answer says what others have used
SOON = 0.05  # seconds
MEANWHILE = 1_000  # requests that may end while one is under way, of which is remembered what their answers said
MOST = 10_000  # accounts


@dataclass(frozen=True, slots=True)
class Told:
    """What a vendor's headers say of its limit: ``left`` of ``calls`` in ``seconds``. None is not said. ``pause``:
    nothing more is taken for so many seconds."""

    calls: int | None = None
    seconds: float | None = None
    left: int | None = None
    pause: float | None = None


class MustWait(Exception):
    """There is no place soon enough; in ``seconds`` there may be one."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the limit of requests is reached; the next may leave in {seconds:.1f} s")


@dataclass(slots=True)
class Turn:
    """One request. Who sends it says what its answer ``told`` of the limit; ``before`` counts those that had ended."""

    before: int = 0
    told: Told | None = None


@dataclass(slots=True)
class _Account:
    """``done`` are the ends of requests within the window, ``ended`` counts all, ``lefts`` is what the latest of their
    answers said to be left. ``budget`` is how many more may leave by what the vendor said at ``heard_at``."""

    calls: int
    seconds: float
    flying: int = 0
    ended: int = 0
    done: deque[float] = field(default_factory=deque)
    lefts: deque[int | None] = field(default_factory=lambda: deque(maxlen=MEANWHILE))
    budget: int = 0
    heard_at: float | None = None
    paused_until: float = 0.0
    freed: asyncio.Event = field(default_factory=asyncio.Event)


class Pace:
    """At most ``calls`` in ``seconds`` for each account, unless the vendor's headers say otherwise."""

    def __init__(self, calls: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls = calls
        self.seconds = seconds
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @asynccontextmanager
    async def turn(self, account: str, patience: float) -> AsyncIterator[Turn]:
        """A place for one request; waits up to ``patience`` seconds. Raises MustWait."""
        held = self._account(account)
        await self._enter(held, patience)
        turn = Turn(held.ended)
        try:
            yield turn
        finally:
            self._leave(held, turn)

    def wait(self, account: str) -> float:
        """Seconds until a place is free, as far as that is known; 0 is now."""
        return self._wait(self._account(account), self._clock())

    async def _enter(self, held: _Account, patience: float) -> None:
        until = self._clock() + patience
        while (wait := self._wait(held, self._clock())) > 0:
            left = until - self._clock()
            if wait > left:
                raise MustWait(wait)
            held.freed.clear()
            try:
                async with asyncio.timeout(min(wait, left)):
                    await held.freed.wait()
            except TimeoutError:
                pass
        held.flying += 1
        held.budget -= 1

    def _wait(self, held: _Account, now: float) -> float:
        while held.done and held.done[0] <= now - held.seconds:
            held.done.popleft()
            held.budget += 1  # what the vendor had counted of it, it counts no more
        if now < held.paused_until:
            return held.paused_until - now
        own = held.calls - held.flying - len(held.done)
        if held.heard_at is None or held.heard_at <= now - held.seconds:  # what others have used since is not known
            free = min(own, CAUTIOUS - held.flying)
        else:
            free = min(own, held.budget)
        if free > 0:
            return 0.0
        if own > 0 and held.flying:
            return SOON  # an answer under way will say more
        if held.done:
            return max(held.done[0] + held.seconds - now, 0.001)
        return max(held.heard_at + held.seconds - now, 0.001) if held.heard_at is not None else held.seconds

    def _leave(self, held: _Account, turn: Turn) -> None:
        now = self._clock()
        held.flying -= 1
        held.ended += 1
        held.done.append(now)
        told = turn.told
        if told is not None:
            self._hear(held, told, held.ended - turn.before - 1, now)
        held.lefts.append(told.left if told is not None else None)
        held.freed.set()

    def _hear(self, held: _Account, told: Told, meanwhile: int, now: float) -> None:
        """``meanwhile``: how many requests have ended while this one was under way. The vendor may not have known of
        them yet; who is alone knows which it had counted, and others keep so far from the limit."""
        if told.calls is not None and told.calls > 0:
            held.calls = told.calls
        if told.seconds is not None and told.seconds > 0:
            held.seconds = told.seconds
        if told.pause is not None:
            held.paused_until = max(held.paused_until, now + told.pause)
        if told.left is not None:
            alone = held.calls - told.left <= len(held.done) + held.flying
            counted = _counted(held.lefts, meanwhile, told.left) if alone else 0
            held.heard_at = now
            held.budget = told.left - held.flying - (meanwhile - counted)

    def _account(self, account: str) -> _Account:
        held = self._accounts.get(account)
        if held is None:
            held = self._accounts[account] = _Account(self.calls, self.seconds)
            if len(self._accounts) > MOST:
                for name, each in self._accounts.items():
                    if not each.flying:
                        del self._accounts[name]
                        break
        else:
            self._accounts.move_to_end(account)
        return held


def _counted(lefts: Sequence[int | None], meanwhile: int, left: int) -> int:
    """Of the latest so many requests, those that their vendor had counted when it said that ``left`` are left: it had
    said to each that as many are left, or more. Of one that said nothing that is not known."""
    known = min(meanwhile, len(lefts))
    return sum(
        1 for place in range(len(lefts) - known, len(lefts)) if (each := lefts[place]) is not None and each >= left
    )
