"""One execution, seen from the parent: hands the batch over, serves the child's requests, gives the verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec

from circuit_script.errors import IrreversibleRefused, RequestRefused
from circuit_script.execution import deciding
from circuit_script.execution.host.answer import Answer, Answered
from circuit_script.execution.host.child_link import ChildLink
from circuit_script.execution.host.fates import CLOSED, GARBAGE, HOST_ENDED, STOPPED
from circuit_script.execution.host.stacks import line_of_stack
from circuit_script.execution.host.watch import Watch, Watching
from circuit_script.execution.outcome import NO_HINT, Breached, Failed, Hint, Outcome, Succeeded, Work, bounded
from circuit_script.execution.protocol import (
    WHOLE,
    Chunk,
    Head,
    LogLine,
    ProtocolError,
    Reply,
    Request,
    Result,
    Run,
    ToParent,
    pack,
    packed,
)
from circuit_script.governor import Crossed, LimitExceeded, Limits, Usage, breach_of, cycles
from circuit_script.governor.limits import BLOCKED

KILL_AFTER = 0.05  # seconds after the verdict; until then the handler may end by itself
LONGEST_STACK = 4000  # characters of it that are kept, from its innermost call on
STOOD_STILL = frozenset({"wall_time", "cpu_time", BLOCKED})  # limits at which the child's stack tells what it did
SHORTEST_LINE = 64  # bytes that a log line counts at least
MAX_REQUESTS = 256  # of one child that are served at once

_log_line = msgspec.msgpack.Decoder(dict[str, Any])
_logger = logging.getLogger(__name__)


class Broker(Protocol):
    """What answers a child's requests; one for each execution. With a request as its work it is Answered, too."""

    @property
    def usage(self) -> Usage: ...

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any: ...

    def log(self, line: dict[str, Any]) -> None: ...


class Unsendable(Exception):
    """A record of the batch cannot be packed; ``suspect`` is its index."""

    def __init__(self, reason: str, suspect: int | None) -> None:
        self.reason = reason
        self.suspect = suspect
        super().__init__(reason)


def frame_of(work: Work, number: int = 0, seat: int = 0) -> bytearray:
    """The batch as one frame. One that shares its child has a number and a seat there. Raises Unsendable."""
    try:
        return pack(_run(work, slice(None), number, seat))
    except Exception as error:  # msgspec raises many kinds for what it cannot carry
        return _blame(work, error)


class Execution:
    """A run in a child. ``outcome`` is None when the child was gone before it began."""

    number = 0  # of those that share a child

    def __init__(self, child: ChildLink, work: Work, broker: Broker, folder: Path | None = None) -> None:
        self._child = child
        self._folder = folder
        self._work = work
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Outcome | None] = self._loop.create_future()
        self._requests: set[asyncio.Task[None]] = set()
        self._answer = _answer_of(work, broker)
        self._breach: Crossed | None = None
        self._suspect: int | None = None
        self._log_bytes = 0
        self._kill_timer: asyncio.TimerHandle | None = None
        self._watch = self._watched()

    async def outcome(self, frame: bytearray) -> Outcome | None:
        """Run to the end; a cancelled one kills its child."""
        try:
            self._child.begin(self, frame)
        except OSError:
            self._watch.stop()
            self._child.kill("it could not take a batch")
            return None
        except (TypeError, ValueError, OverflowError) as error:  # limits that the kernel does not take
            self._end(None)
            self._child.kill("it could not be limited")
            return Failed(f"the batch cannot be started: {error}", self._broker.usage)
        try:
            return await self._done
        except asyncio.CancelledError:
            self._end(None)
            self._abandon()
            raise

    def _watched(self) -> Watching:
        return Watch(self._child, self._work.limits, self._on_verdict)

    def _abandon(self) -> None:
        """Nobody waits for it any more."""
        self._child.kill("its execution was cancelled")

    def _retire(self) -> None:
        """It has ended, and its child is not as it was before."""
        self._child.kill("it is not used again")

    def on_message(self, message: ToParent) -> None:
        """What the child says while it runs."""
        match message:
            case Request():
                task = self._loop.create_task(self._serve(message))
                self._requests.add(task)
                task.add_done_callback(self._served)
                if len(self._requests) >= MAX_REQUESTS:
                    self._child.pause(True)
            case LogLine(line):
                self._log(line)
            case Result():
                self._on_result(message)
            case Head() | Chunk():
                self._on_answer(message)
            case _:
                self._child.kill(GARBAGE)

    def on_gone(self, why: str, detail: str) -> None:
        """The child is dead and buried."""
        if self._done.done():
            return None
        if not self._child.began and self._breach is None:
            return self._end(None)
        usage = self._broker.usage
        crossed = self._breach or _crossed(self._watch.settle(usage))
        if crossed is not None:
            return self._end(self._breached(crossed))
        self._end(Failed(why, usage, detail, self._suspected(), blameless=why in (HOST_ENDED, STOPPED)))

    def _on_answer(self, part: Head | Chunk) -> None:
        if self._breach is not None:
            return
        try:
            if self._answer is None:
                raise ProtocolError("an answer to nothing")
            self._answer.take(part)
        except LimitExceeded as breach:
            self._on_verdict(breach)
        except ProtocolError as error:
            self._give_up(f"{GARBAGE} ({error})")
        except Exception:
            _logger.exception("the answer of execution %s is lost", self._work.execution)
            self._give_up("the platform could not take the answer")

    def _give_up(self, why: str) -> None:
        """Whatever the child says from here on does not count."""
        self._child.kill(why)
        self._end(Failed(why, self._broker.usage))

    def _on_result(self, result: Result) -> None:
        usage = self._broker.usage
        crossed = _crossed(self._watch.settle(usage, closely=result.unclean))
        crossed = self._breach or crossed
        outcome = self._judged(result, usage) if crossed is None else self._breached(crossed, result)
        clean = isinstance(outcome, Succeeded) or (crossed is None and result.kind == "raised")
        if not (clean and not result.unclean and self._watch.reusable):
            self._retire()
        self._end(outcome)

    def _judged(self, result: Result, usage: Usage) -> Outcome:
        size = len(self._work.records)
        suspect = self._within(result.suspect)
        match result.kind:
            case "returned" | "refused" if self._answer is not None:
                if not self._answer.status:
                    return Failed(f"{GARBAGE} (no answer)", usage)
                return Succeeded(usage, discard=result.kind == "refused" or self._answer.status >= 400)
            case "returned" if all(0 <= place < size for place in result.errors):
                decided = _decisions(result.decided, result.errors)
                return Succeeded(usage, result.errors, decided, hints=_hints(result.hints, result.errors))
            case "memory":
                ceiling = self._work.limits.memory
                usage.memory = max(usage.memory, ceiling)  # the kernel refused what would have been more
                return Breached(
                    "memory", usage.memory, ceiling, usage, suspect, detail=result.detail, where=self._child.line
                )
            case "raised" | "limit" | "left":
                hint = _hints(result.hints, (WHOLE,)).get(WHOLE, NO_HINT)
                return Failed(result.reason, usage, result.detail, suspect, hint=hint)
            case _:
                return Failed(GARBAGE, usage)

    def _on_verdict(self, breach: LimitExceeded) -> None:
        """The limit is crossed: nothing that the handler does from here on counts."""
        if self._breach is not None or self._done.done():
            return
        self._breach = breach.crossed
        self._suspect = self._suspected()
        self._watch.stop()
        if breach.limit in ("log_bytes", "answer_bytes"):
            self._child.ignore()
        patience = 0.0 if breach.limit in ("memory", "processes") else KILL_AFTER
        if breach.limit in STOOD_STILL:
            self._child.ask_for_stack()
        self._kill_timer = self._loop.call_later(patience, self._child.kill)

    def _breached(self, crossed: Crossed, result: Result | None = None) -> Breached:
        if self._breach is None:
            self._suspect = self._suspected()
        else:
            self._watch.settle(self._broker.usage)
        limit, used, ceiling, said = crossed
        stack = self._child.last_words if limit in STOOD_STILL else ""
        return Breached(
            limit,
            used,
            ceiling,
            self._broker.usage,
            self._suspect,
            detail="\n".join(part for part in (stack[:LONGEST_STACK], result.detail if result else "") if part),
            said=said,
            where=line_of_stack(stack, self._folder) or self._child.line,
        )

    def _suspected(self) -> int | None:
        return self._within(self._child.suspect)

    def _within(self, place: int | None) -> int | None:
        """A child can say and write anything."""
        return place if place is not None and 0 <= place < len(self._work.records) else None

    def _end(self, outcome: Outcome | None) -> None:
        self._watch.stop()
        self._child.listener = None
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._child.kill()
            self._kill_timer = None
        for task in self._requests:
            task.cancel()
        if not self._done.done():
            self._done.set_result(outcome)

    async def _serve(self, request: Request) -> None:
        used = self._broker.usage
        try:
            if self._breach is not None:
                raise breach_of(*self._breach)
            cycles.request.set((request.id, request.heard))  # of this task
            deciding.asking.set(request.by)
            value = await self._broker.request(request.verb, request.arguments)
            reply = Reply(request.id, value, used=used, run=self.number)
        except IrreversibleRefused as refused:
            why = f"{refused.detail} {refused.cure}".strip()
            reply = Reply(request.id, refused=why, used=used, run=self.number, page=refused.page)
        except RequestRefused as refused:
            reply = Reply(request.id, refused=str(refused), used=used, run=self.number)
        except LimitExceeded as breach:
            self._on_verdict(breach)
            reply = Reply(request.id, limit=breach.crossed[:3], said=breach.said, run=self.number)
        except Exception as error:
            _logger.exception("request %s of execution %s failed", request.verb, self._work.execution)
            why = f"the platform could not answer: {type(error).__name__}."
            reply = Reply(request.id, refused=why, run=self.number)
        except asyncio.CancelledError as cancelled:  # the execution has ended: nobody waits for the reply
            # psycopg_pool keeps the cancellation of who waits for a connection, and by its traceback all that is here.
            cancelled.__traceback__ = None
            return
        self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        try:
            frame = pack(reply)
        except Exception as error:  # msgspec raises many kinds for what it cannot carry
            frame = pack(Reply(reply.id, refused=f"the answer cannot be sent: {error}.", run=self.number))
        if self._child.listener is self:
            try:
                self._child.send(frame)
            except OSError:
                self._child.kill(CLOSED)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if len(self._requests) < MAX_REQUESTS and self._child.listener is self:
            self._child.pause(False)

    def _log(self, packed_line: msgspec.Raw) -> None:
        """Take a log line; its length is counted before it is unpacked."""
        self._log_bytes += max(len(packed_line), SHORTEST_LINE)
        ceiling = self._work.limits.log_bytes
        if self._log_bytes > ceiling:
            usage = self._broker.usage
            usage.log_bytes = max(usage.log_bytes, self._log_bytes)
            return self._on_verdict(LimitExceeded("log_bytes", self._log_bytes, ceiling))
        line = _log_line.decode(packed_line)
        try:
            self._broker.log(line)
        except LimitExceeded as breach:
            self._on_verdict(breach)
        except Exception:  # a log that fails does not fail its execution
            _logger.exception("log line of execution %s lost", self._work.execution)


def _answer_of(work: Work, broker: Broker) -> Answer | None:
    if work.request is None:
        return None
    if not isinstance(broker, Answered):
        raise TypeError("the broker of a request takes its answer: it has on_head and on_chunk")
    return Answer(broker)


def _crossed(breach: LimitExceeded | None) -> Crossed | None:
    return None if breach is None else breach.crossed


def _decisions(decided: Mapping[int, float | None], errors: Mapping[int, str]) -> dict[int, float | None]:
    return {place: bounded(after) for place, after in decided.items() if place in errors}


def _hints(said: Mapping[int, tuple[list[str], float]], places: Collection[int]) -> dict[int, Hint]:
    """What exceptions of these places said; a child can say anything."""
    return {
        place: Hint(tuple(kinds), bounded(after) or 0.0) for place, (kinds, after) in said.items() if place in places
    }


@lru_cache
def _ceilings(limits: Limits) -> dict[str, float]:
    return limits.as_dict()


def _run(work: Work, part: slice, number: int = 0, seat: int = 0) -> Run:
    return Run(
        execution=str(work.execution),
        handler=work.handler,
        tenant=work.tenant,
        object=work.object,
        event=work.event,
        records=list(work.records[part]),
        old=packed(work.old[part]),
        events=packed(work.events[part]),
        limits=_ceilings(work.limits),
        started_at=work.started_at,
        request=work.request,
        number=number,
        seat=seat,
        depth=work.depth,
        verdicts={place: dict(each) for place, each in work.verdicts.items()},
    )


def _blame(work: Work, error: Exception) -> bytearray:
    """Find the record that cannot be packed, so that the others can go on without it."""
    for place in range(len(work.records)):
        try:
            pack(_run(work, slice(place, place + 1)))
        except Exception as found:
            raise Unsendable(f"the record cannot be handed to the handler: {found}", place) from None
    raise Unsendable(f"the batch cannot be handed to the handler: {error}", None) from None
