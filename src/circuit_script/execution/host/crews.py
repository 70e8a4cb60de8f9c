"""Who shares a child with whom: up to N executions of one tenant and one handler, in as few children as it takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from circuit_script.execution.host.child_link import ChildLink, Key
from circuit_script.execution.host.crew import Crew, Seat, SharedExecution
from circuit_script.execution.host.run import Broker, Unsendable, frame_of
from circuit_script.execution.host.shared_watch import LONGEST_TURN
from circuit_script.execution.outcome import Failed, Outcome, Work


class Places:
    """So many children run at once. ``on_free`` is called when one less does."""

    def __init__(self, size: int, on_free: Callable[[], None] = lambda: None) -> None:
        self.taken = 0
        self._free = asyncio.Semaphore(size)
        self._on_free = on_free

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self.taken += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.taken -= 1
        self._free.release()
        self._on_free()


@dataclass(frozen=True, slots=True)
class Nursing:
    """Where children come from, and go to. ``longest_turn``: how long one step may keep others waiting, in seconds.

    ``strict``: those who are in a child at the same time are of one tenant, whatever the handler says.
    """

    folder: Path
    child_for: Callable[[Key], Awaitable[ChildLink]]
    take_back: Callable[[ChildLink], None]
    longest_turn: float = LONGEST_TURN
    strict: bool = False


class Sharing:
    """All executions that share children."""

    def __init__(self, nursing: Nursing) -> None:
        self._nursing = nursing
        self._crews: dict[Key, Crews] = {}

    @property
    def more(self) -> int:
        """How many executions run beyond one in each child."""
        return sum(crews.more for crews in self._crews.values())

    async def run(self, work: Work, broker: Broker, places: Places) -> Outcome | None:
        """Run it beside others. None when its child was gone before it began."""
        shared = work.share_child and not self._nursing.strict
        key = (None if shared else work.tenant, work.limits.memory, work.handler)
        crews = self._crews.get(key)
        if crews is None:
            crews = self._crews[key] = Crews(key, work.concurrency, places, self._nursing)
        try:
            return await crews.run(work, broker)
        finally:
            self._forget_idle()

    def _forget_idle(self) -> None:
        for key in [key for key, crews in self._crews.items() if crews.idle]:
            del self._crews[key]


class Crews:
    """All crews of one handler and tenant. A child is theirs, and takes its place, for as long as somebody is in it."""

    def __init__(self, key: Key, size: int, places: Places, nursing: Nursing) -> None:
        self._key = key
        self._size = size
        self._places = places
        self._nursing = nursing
        self._crews: list[Crew] = []
        self._waiting: deque[asyncio.Future[Seat]] = deque()
        self._opening = 0
        self._keepers: set[asyncio.Task[None]] = set()

    @property
    def more(self) -> int:
        """How many executions there are beyond one in each child."""
        return sum(max(0, len(crew.seats()) - 1) for crew in self._crews)

    @property
    def idle(self) -> bool:
        """Whether there is nobody, and nobody comes."""
        return not self._keepers and not self._waiting

    async def run(self, work: Work, broker: Broker) -> Outcome | None:
        """Run it in a seat. None when its child was gone before it began."""
        seat = await self._seat()
        over = True
        try:
            frame = frame_of(work, seat.number, seat.place)
            outcome = await SharedExecution(seat, work, broker, self._nursing.folder).outcome(frame)
            over = outcome is None
            return outcome
        except Unsendable as unsendable:
            return Failed(unsendable.reason, broker.usage, suspect=unsendable.suspect)
        except asyncio.CancelledError:
            over = False
            raise
        finally:
            if over or seat.crew.link.gone:
                seat.crew.leave(seat)  # else its end is still to be heard

    async def _seat(self) -> Seat:
        for crew in self._crews:
            if crew.room:
                return crew.take()
        waiting: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._open()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().crew.leave(waiting.result())
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)

    def _open(self) -> None:
        """Order as many children as those who wait will fill."""
        while self._opening * self._size < len(self._waiting):
            self._opening += 1
            keeper = asyncio.create_task(self._keep())
            self._keepers.add(keeper)
            keeper.add_done_callback(self._kept)

    async def _keep(self) -> None:
        """One child, from the wait for its place until the last one has left."""
        opening = True
        try:
            async with self._places:
                if not self._waiting:
                    return
                link = await self._nursing.child_for(self._key)
                link.tenant = self._key[0]
                self._opening -= 1
                opening = False
                await self._live(Crew(link, self._size, self._key[1], self._serve, self._nursing.longest_turn))
        finally:
            self._opening -= opening

    async def _live(self, crew: Crew) -> None:
        self._crews.append(crew)
        try:
            self._serve()
            if not crew.seats() or crew.link.gone:
                crew.empty.set()
            await crew.empty.wait()
        finally:
            self._crews.remove(crew)
            crew.close()
            self._nursing.take_back(crew.link)

    def _serve(self) -> None:
        """Give free seats to those who wait, in their order."""
        for crew in self._crews:
            while self._waiting and crew.room:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(crew.take())
        self._open()

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        self._keepers.discard(keeper)
        error = None if keeper.cancelled() else keeper.exception()
        if error is None:
            return self._open()
        for waiting in self._waiting:  # the pool stops
            if not waiting.done():
                waiting.set_exception(error)
