"""Executions that share a child, seen from the parent: each has a seat, and all have one process to lose."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from circuit_script.execution.host.child_link import MAX_RUNS, ChildLink
from circuit_script.execution.host.fates import HOST_ENDED, STOPPED
from circuit_script.execution.host.run import KILL_AFTER, Broker, Execution
from circuit_script.execution.host.shared_watch import LONGEST_TURN, CrewWatch, SeatWatch
from circuit_script.execution.outcome import Failed, Work
from circuit_script.execution.procfs import cpu_time
from circuit_script.execution.protocol import (
    BEGAN,
    NOBODY,
    SEATS,
    SHARING,
    STEPPED,
    THREADS,
    TURN,
    Chunk,
    Head,
    LogLine,
    Request,
    Result,
    Stop,
    ToParent,
    pack,
)
from circuit_script.governor import LimitExceeded
from circuit_script.governor.limits import BLOCKED

STANDING = frozenset({"connect", "request"})  # requests of plain code, which blocks until they are answered
LEFT_OVER = "one of its executions did not end when it should"
NO_MEMORY = "one of its executions found no memory left"
BROKEN_UP = "the process that it shared with others ended ({}): it runs again, alone"
HELD_UP = "others in its process kept it waiting ({:.1f} of its {:g} s): it runs again, alone"
STRAYS = "it speaks for executions that are over"
MOST_STRAYS = 100  # messages of a child that are nobody's
MOST_REQUESTS = 1024  # of one execution that are served at once
TOO_MANY = f"the handler asked for more than {MOST_REQUESTS:,} things at once"
FAIR = 0.25  # of its wall time that others' steps may take

COURTESY = 0.5  # seconds of CPU time that all in the process may use meanwhile
MOST_WINDOWS = 40  # of KILL_AFTER, in which who is to end has to do so

_numbers = itertools.count(1)


class Crew:
    """The executions of one child, up to ``size`` at once. ``on_free`` is called when one of them has left.

    The child takes no further ones once it is ``retired``.
    """

    def __init__(
        self,
        link: ChildLink,
        size: int,
        memory: int,
        on_free: Callable[[], None],
        longest_turn: float = LONGEST_TURN,
    ) -> None:
        self.link = link
        self.retired = False
        self.empty = asyncio.Event()
        self._shares = link.version >= SHARING
        self._on_free = on_free
        self._seats: dict[int, Seat] = {}  # by the number of their run
        self._places = list(range(size if self._shares else 1))
        self._taken = 0
        self._strays = 0
        link.listener = self  # from here on, also of a child that dies before it is handed anything
        self._watch = CrewWatch(link, memory, self._on_verdict, self.seats, longest_turn)

    @property
    def room(self) -> int:
        """How many more it takes."""
        over = self.retired or self.link.doomed or self.empty.is_set() or self._taken >= MAX_RUNS
        return 0 if over else len(self._places)

    @property
    def memory(self) -> int:
        """The most that the process has had so far, in bytes."""
        return self._watch.memory

    @property
    def is_waiting(self) -> bool:
        """Whether its loop has nothing to do."""
        return self.link.memory.word(STEPPED) == NOBODY

    @property
    def steps(self) -> float:
        """The seconds that steps of its executions have taken."""
        return self._watch.steps

    @property
    def turns(self) -> int:
        """How many steps its loop has made."""
        return self.link.memory.word(TURN)

    def seats(self) -> list[Seat]:
        """Who is in it."""
        return list(self._seats.values())

    def take(self) -> Seat:
        """A seat; there must be room."""
        self._taken += 1
        number = next(_numbers) if self._shares else 0
        seat = self._seats[number] = Seat(self, number, self._places.pop())
        if self._taken > 1:
            for each in self._seats.values():
                each.in_company = True
        return seat

    def leave(self, seat: Seat) -> None:
        """Nothing runs in this seat any more."""
        if self._seats.pop(seat.number, None) is None:
            return
        seat.over = True
        self._places.append(seat.place)
        self._on_free()
        if not self._seats:
            self.empty.set()

    def close(self) -> None:
        """Nobody is in it any more: leave the child clean, or end it."""
        self._watch.stop()
        self.link.listener = None
        if not self.link.doomed and (self.retired or not self._watch.is_clean()):
            self.link.kill("it is not used again")

    def held_up(self, seat: Seat) -> float:
        """The seconds of its time in which the process made others' steps."""
        return self.steps - seat.steps_before - seat.steps

    def look(self) -> None:
        """Measure it now. What is over a limit ends it."""
        self._watch.look()

    def on_message(self, message: ToParent) -> None:
        """What the child says while somebody runs in it."""
        seat = self._seats.get(getattr(message, "run", NOBODY))
        if seat is None:
            self.retired = True  # who speaks for a run that is over was left behind by it
            self._strays += 1
            return self.link.kill(STRAYS) if self._strays > MOST_STRAYS else None
        seat.heard = True
        if isinstance(message, Result):
            seat.over = True
            self.retired = self.retired or message.unclean
        if seat.listener is not None:
            seat.listener.on_message(message)
        if seat.over:
            self.leave(seat)

    def on_gone(self, why: str, detail: str) -> None:
        """The child is dead and buried, and nothing of what ran in it counts."""
        self.retired = True
        self._watch.stop()
        with ExitStack() as each:  # every one hears of it, also when another's end fails
            for seat in self.seats():
                each.callback(self.leave, seat)
                if seat.listener is not None:
                    each.callback(seat.listener.on_gone, why, detail)

    def _on_verdict(self, breach: LimitExceeded) -> None:
        """The process is over a limit: by who was alone with it, or who blocks its loop; else nobody can tell."""
        self.retired = True
        guilty: Seat | None = None
        if breach.limit == BLOCKED:
            guilty = self._seats.get(self._watch.blocker)
        elif len(seats := self.seats()) == 1 and not seats[0].in_company:
            guilty = seats[0]
        if guilty is None or guilty.listener is None:
            return self.link.kill(f"together they crossed {breach}")
        guilty.is_guilty = True
        guilty.listener.accuse(breach)
        patience = 0.0 if breach.limit in ("memory", "processes") else KILL_AFTER
        asyncio.get_running_loop().call_later(patience, self.link.kill, f"one of them crossed {breach}")


class Seat:
    """The place of one execution in a crew: to the execution, what a whole child is to one that is alone."""

    def __init__(self, crew: Crew, number: int, place: int) -> None:
        self.crew = crew
        self.number = number
        self.place = place
        self.listener: SharedExecution | None = None
        self.in_company = False  # with others, now or before: nobody knows what of the process is its own
        self.is_guilty = False  # of what the whole process is in for
        self.over = False
        self.heard = False
        self.steps = 0.0  # seconds that its own steps took
        self.steps_before = crew.steps  # and those of all, before it came
        self.cpu = 0.0  # its share of the process's, in seconds
        self.cpu_ceiling = math.inf  # until it is known
        self.line = ""
        self.asks = 0  # what it stands still for until we answer
        self._turns = 0
        self._cpu_then = 0.0
        self._waits = False
        self._windows = MOST_WINDOWS

    def begin(self, execution: SharedExecution, frame: bytearray) -> None:
        """Hand over a run. Raises OSError when the child cannot take it."""
        self.listener = execution
        self.crew.link.begin(self.crew, frame)

    @property
    def began(self) -> bool:
        """Whether the child has started with it. Its own word alone could be taken back."""
        if self.heard or not self.number:
            return self.heard or self.crew.link.began
        return self.crew.link.left or self.crew.link.memory.word(BEGAN + self.place) == self.number

    @property
    def threads(self) -> int:
        """How many threads work for it, as the child says."""
        return self.crew.link.memory.word(THREADS + self.place) if self.number else 0

    @property
    def suspect(self) -> int | None:
        """The record that it works on now."""
        if not self.number:
            return self.crew.link.suspect
        word = self.crew.link.memory.word(SEATS + self.place)
        return None if word == NOBODY else word

    @property
    def last_words(self) -> str:
        """The stack of the process, where it is the stack of this one."""
        return self.crew.link.last_words if self.is_guilty else ""

    def ask_for_stack(self) -> None:
        """Let the process write it."""
        if self.is_guilty:
            self.crew.link.ask_for_stack()

    def send(self, frame: bytearray) -> None:
        """Send to the child. Raises OSError when it is gone."""
        self.crew.link.send(frame)

    def pause(self, paused: bool) -> None:
        """The others are heard all the same: who asks for too much ends."""

    def ignore(self) -> None:
        """Its execution does that: its end must be heard."""

    def kill(self, why: str = "") -> None:
        """End its process, at once if it says why, else unless it ends by itself."""
        if why:
            self.crew.link.kill(why)
        else:
            self.wait_for_its_end()

    def stop(self, breach: LimitExceeded | None) -> None:
        """Let it end by itself; else its process ends."""
        if self.over or self.crew.link.doomed:
            return
        if not self.number:
            return self.crew.link.kill(LEFT_OVER)
        limit, said = (None, "") if breach is None else (breach.crossed[:3], breach.said)
        try:
            self.crew.link.send(pack(Stop(self.number, limit, said)))
        except OSError:
            return self.crew.link.kill(LEFT_OVER)
        self.wait_for_its_end()

    def wait_for_its_end(self) -> None:
        """End its process, unless it ends in its time."""
        if not self._waits:
            self._waits = True
            self._turns, self._cpu_then = self.crew.turns, cpu_time(self.crew.link.pid)
            asyncio.get_running_loop().call_later(KILL_AFTER, self._expel)

    def _expel(self) -> None:
        """It has had its time, but only if the loop went on meanwhile: else another stood in its way, for a while."""
        if self.over or self.crew.link.doomed:
            return
        self._windows -= 1
        busy = self.crew.turns != self._turns and cpu_time(self.crew.link.pid) - self._cpu_then > COURTESY
        link = self.crew.link
        had_its_time = not (link.stopped or link.unread or link.unheard) and (self.crew.is_waiting or busy)
        if had_its_time or not self._windows or len(self.crew.seats()) == 1:
            return self.crew.link.kill(LEFT_OVER)
        asyncio.get_running_loop().call_later(KILL_AFTER, self._expel)


class SharedExecution(Execution):
    """A run in a crew."""

    _child: Seat  # type: ignore[assignment]  # it has all of a child that an execution needs

    def __init__(self, seat: Seat, work: Work, broker: Broker, folder: Path | None = None) -> None:
        self.number = seat.number
        seat.cpu_ceiling = work.limits.cpu_time
        super().__init__(seat, work, broker, folder)  # type: ignore[arg-type]  # as above

    def accuse(self, breach: LimitExceeded) -> None:
        """It has brought its process over a limit."""
        self._on_verdict(breach)

    def on_message(self, message: ToParent) -> None:
        """What the child says of this run."""
        if isinstance(message, Result):
            return self._on_end(message)
        if self._done.done() or self._is_past(message):
            return
        if isinstance(message, Request) and len(self._requests) >= MOST_REQUESTS:
            self._child.stop(None)
            return self._end(Failed(TOO_MANY, self._broker.usage))
        super().on_message(message)

    def _is_past(self, message: ToParent) -> bool:
        """Whether it comes after a verdict, and is not looked at: of lines, said before it perhaps, only a flood."""
        if self._breach is None:
            return False
        return isinstance(message, Head | Chunk) or (isinstance(message, LogLine) and self._breach[0] == "log_bytes")

    async def _serve(self, request: Request) -> None:
        stands = request.verb in STANDING
        self._child.asks += stands
        try:
            await super()._serve(request)
        finally:
            self._child.asks -= stands

    def on_gone(self, why: str, detail: str) -> None:
        """The child is dead, and perhaps it was another's fault."""
        if self._is_innocent and self._child.began and why not in (HOST_ENDED, STOPPED):
            self._break_up(why)
        else:
            super().on_gone(why, detail)

    def _on_end(self, result: Result) -> None:
        self._child.line = result.where
        self._child.crew.look()
        if self._is_innocent and result.kind == "memory":
            self._child.kill(NO_MEMORY)
        if self._is_innocent and self._child.crew.link.doomed:
            self._break_up(NO_MEMORY if result.kind == "memory" else "they crossed a limit")
        elif not (self._done.done() or (self._watch.settle(self._broker.usage) is not None and self._gives_way())):
            super().on_message(result)

    def _gives_way(self) -> bool:
        """At the end of its time: whether others took too much of it, so that it runs again, alone."""
        waited, ceiling = self._child.crew.held_up(self._child), self._work.limits.wall_time
        if not self._is_innocent or waited <= FAIR * ceiling:
            return False
        self._watch.settle(self._broker.usage)
        self._end(Failed(HELD_UP.format(waited, ceiling), self._broker.usage, disturbed=True))
        return True

    @property
    def _is_innocent(self) -> bool:
        """Whether what happens to its process may be another's fault."""
        return self._child.in_company and self._breach is None and not self._done.done()

    def _break_up(self, why: str) -> None:
        self._watch.settle(self._broker.usage)
        self._end(Failed(BROKEN_UP.format(why), self._broker.usage, disturbed=True))

    def _watched(self) -> SeatWatch:
        seat = self._child
        return SeatWatch(seat, self._work.limits, lambda: seat.crew.memory, self._on_verdict)

    def _abandon(self) -> None:
        self._child.stop(None)

    def _retire(self) -> None:
        self._child.crew.retired = True

    def _on_verdict(self, breach: LimitExceeded) -> None:
        if self._breach is not None or self._done.done():
            return
        if breach.limit == "wall_time" and self._gives_way():
            return self._child.wait_for_its_end()
        super()._on_verdict(breach)
        if self._child.is_guilty:
            return  # the crew ends it
        if breach.limit == "wall_time":
            self._child.wait_for_its_end()  # the child has a clock, too
        else:
            self._child.stop(breach)
