"""The courier: delivers effects in order per record, at least once, each with its idempotency key."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import UUID

import psycopg
import structlog

from circuit_script.connectors.connector import (
    Connector,
    Delivered,
    Delivery,
    InDoubt,
    LooksUp,
    Operation,
    Rate,
    Refused,
    SlowDown,
    Unknown,
)
from circuit_script.connectors.registry import declared
from circuit_script.db.pool import Pool
from circuit_script.effects.carry import UNHEARD, Carrier
from circuit_script.effects.due import Due, Group, Lap, read_due
from circuit_script.effects.gate import Gate, Paused, nothing_paused
from circuit_script.effects.rates import LANES, Rates
from circuit_script.effects.results import Rule, Told, judge, settle
from circuit_script.effects.settle import is_transient
from circuit_script.effects.waits import Teller
from circuit_script.failpoints import areach
from circuit_script.telemetry.otlp import Made
from circuit_script.telemetry.spans import OK

log = structlog.get_logger()

GRACE = 0.5  # seconds for a request that ran out of time to say so
GROUPS = 200  # of a tenant, operation and target, that one round looks at
MOST = 2000  # effects that one round reads
MAX_SERVED = 10_000
MOST_SAID = 100  # characters of why a request failed, in its trace
SHARE = 20  # a lap that took a second is followed by so many of sleep, unless somebody wakes the courier
LONGEST_SLEEP = 5.0  # seconds
SHORTEST_SLEEP = 0.01


@dataclass(frozen=True, slots=True)
class CourierOptions:
    """``backoff`` is the first delay in seconds; it doubles up to an hour. ``poll`` is the longest sleep.

    ``bulk`` is how many effects are read at a time (more where requests take more), ``room`` how many requests may be
    on their way to one target; ``traced``: who gets an effect is told its trace. ``rates`` are by connector and
    operation, and replace what connectors declare.
    """

    attempts: int = 8
    backoff: float = 2.0
    poll: float = 1.0
    bulk: int = 200
    room: int = 64
    traced: bool = True
    rates: Mapping[tuple[str, str], Rate] = field(default_factory=dict)


class Traces(Protocol):
    """Who hears what became of requests. It must not wait, nor raise."""

    def delivered(self, made: Made, name: str, status: str, began_ns: int, **said: Any) -> None: ...


class Courier:
    """Delivers the effects of the lanes that ``held`` returns (lane → epoch). What is ``paused`` stays: all of them, or
    those of a connector, a tenant, a record.

    Each request is a task of its own, so that a target that hangs delays nobody else's effects. What is on its way
    stays pending in the database until its result is told, and so keeps later ones of its order key waiting.
    """

    def __init__(
        self,
        *,
        database: Pool,
        connectors: Mapping[str, Connector],
        worker: UUID,
        held: Callable[[], Mapping[int, int]],
        options: CourierOptions,
        paused: Paused = nothing_paused,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._database = database
        self._connectors = connectors
        self._worker = worker
        self._held = held
        self._options = options
        self._paused = paused
        rates = Rates(options.rates, lambda: len(held()) / LANES, time.monotonic)
        self._gate = Gate(rates=rates, paused=paused, room=options.room, clock=time.monotonic)
        self._lap = Lap(GROUPS)
        self._teller = Teller(worker, time.monotonic)
        self._soonest = math.inf  # seconds from a lap's end until something may leave that may not now
        self._rounds = 0
        self._sent = False  # by the latest round
        self._served: dict[Group, int] = {}  # → the round of its latest turn
        self._wake = asyncio.Event()
        self._stopping = False
        self._flying: dict[UUID, Due] = {}  # until their results are told
        self._results: list[Told] = []
        self._requests: dict[asyncio.Task[None], float] = {}  # → the loop's time by which each ends

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """Send nothing more. ``run`` ends when what is on its way has come back, or has used up its time."""
        self._stopping = True
        self._wake.set()

    def busy_lanes(self) -> set[int]:
        """The lanes of which something is on its way, or has come back and is not told yet."""
        return {each.lane for each in self._flying.values()}

    async def run(self) -> None:
        try:
            clock = asyncio.get_running_loop().time
            began = clock()
            while not self._stopping:
                self._wake.clear()
                more = await self._safely(self._round)
                if self._sent:
                    began = clock()
                if not more and not self._stopping:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self._sleep(clock() - began))
                    began = clock()
            while self._requests and (left := max(self._requests.values()) - clock()) > 0:
                await asyncio.wait(self._requests, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                await self._safely(self._tell)
            await self._safely(self._tell)
        finally:
            for request in self._requests:
                request.cancel()
            self._flying.clear()  # what is not told now never is: nobody need wait for it

    def _sleep(self, lap: float) -> float:
        """Seconds, after a lap that took so many and sent nothing. No wait is overslept that ends at a known time."""
        # Where very much waits for its time, looking at it takes a small share of ours.
        heavy = min(LONGEST_SLEEP, SHARE * lap)
        if heavy > self._options.poll:
            return heavy
        return min(self._options.poll, max(self._soonest, lap, SHORTEST_SLEEP))

    async def _safely(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except Exception as error:  # the courier goes on, whatever it is
            log.warning("courier", error=repr(error), next="trying again")
            return False

    async def _round(self) -> bool:
        """Tell what came back and send what is due; True when more may be due."""
        self._sent = False
        await self._tell()
        due, more = await self._due()
        if self._stopping:
            return False
        due = self._ours(due)  # reading took its time
        groups: dict[Group, list[Due]] = {}
        flying = Counter(each.group.place for each in self._flying.values())
        # Where there is not room for all, those come first that have waited longest for a turn.
        for each in sorted(due, key=lambda one: self._served.get(one.group, 0)):
            if flying[each.group.place] < self._gate.room(self._spec(each.group)):
                flying[each.group.place] += 1
                groups.setdefault(each.group, []).append(each)
        self._rounds += 1
        self._sent = bool(groups)
        for group, each_of in groups.items():
            self._served[group] = self._rounds
            self._send(group, each_of)
        if len(self._served) > MAX_SERVED:
            self._served.clear()
        return more

    async def _due(self) -> tuple[list[Due], bool]:
        """What may leave now; and whether there may be more."""
        self._soonest = math.inf
        epochs = dict(self._held())
        if not epochs:
            return [], False
        flying = Counter(each.group.place for each in self._flying.values())
        async with self._database.connection() as connection:
            groups, more = await self._lap.next(connection)
            specs = {group: self._spec(group) for group in groups}
            share = self._options.bulk // max(1, len(groups))
            most = {
                group: min(number, max(share, spec.bulk if (spec := specs[group]) else 1))
                for group, number in self._gate.admit(groups, specs, flying).items()
            }
            stopped = self._paused().records
            bulk = max(MOST, *most.values()) if most else 0
            due = await read_due(connection, most, epochs, self._flying, bulk, stopped) if most else []
            if not self._options.traced:
                due = [replace(each, effect=replace(each.effect, traceparent=None)) for each in due]
            if not more:
                await self._teller.tell(connection, self._gate.waits())
                self._soonest = min(self._lap.soonest, self._gate.soonest)
                self._gate.rested()
        found = Counter(each.group for each in due)
        return due, more or any(found[group] >= number for group, number in most.items())

    def _spec(self, group: Group) -> Operation | None:
        return declared(self._connectors, group.connector, group.operation)

    def _send(self, group: Group, due: Sequence[Due]) -> None:
        spec = self._spec(group)
        if spec is None:
            missing = Refused(f"there is no connector {group.connector!r} with operation {group.operation!r}")
            # Who knows what it makes, and whether it may be repeated.
            rule = Rule(InDoubt.ASK_A_PERSON, self._options.attempts, self._options.backoff, makes_ids=True)
            self._flying.update((each.effect.id, each) for each in due)
            self._results += [judge(each, Unknown(UNHEARD) if each.doubtful else missing, rule) for each in due]
            self._wake.set()
            return
        number = self._gate.leave(group, spec, len(due))
        probe = number is None
        due = due[: 1 if number is None else number]
        self._flying.update((each.effect.id, each) for each in due)
        for start in range(0, len(due), spec.bulk):
            bulk = due[start : start + spec.bulk]
            deliver = self._deliver(group, spec, bulk, probe=probe)
            request = asyncio.create_task(deliver, name=f"courier to {group.connector}")
            self._expect(request, spec)
            request.add_done_callback(self._requests.pop)

    def _ours(self, due: Sequence[Due]) -> list[Due]:
        """Those whose lanes are this worker's as they were when it read them."""
        held = self._held()
        return [each for each in due if held.get(each.lane) == each.epoch]

    def _expect(self, request: asyncio.Task[None], spec: Operation) -> None:
        self._requests[request] = asyncio.get_running_loop().time() + spec.timeout + GRACE

    async def _deliver(self, group: Group, spec: Operation, due: Sequence[Due], *, probe: bool) -> None:
        connector = self._connectors[group.connector]
        rule = Rule(
            spec.in_doubt,
            self._options.attempts,
            self._options.backoff,
            can_look=spec.in_doubt is InDoubt.LOOK_UP and isinstance(connector, LooksUp),
            makes_ids=spec.makes_ids,
            counts=not probe,  # else a vendor that is away for long would cost its probes their lives
        )
        request = asyncio.current_task()
        asked = False

        def begins(again: bool) -> None:
            if request is not None:
                self._expect(request, spec)
            if again:
                self._gate.took(group, spec)

        def heard(results: Collection[Delivery]) -> None:
            nonlocal asked
            asked = True
            self._gate.heard(group, results, probe=probe)

        carrier = Carrier(
            connector=connector,
            operation=group.operation,
            spec=spec,
            database=self._database,
            worker=self._worker,
            begins=begins,
            heard=heard,
            goes_on=lambda: not self._stopping and len(self._ours(due)) == len(due),
        )
        results: Mapping[UUID, Delivery | None] = {}
        began = time.time_ns()
        try:
            results = await carrier.carry(due)
        except Exception as error:  # nothing has left
            log.warning("courier", connector=group.connector, error=repr(error), next="trying again")
        finally:
            if probe and not asked:
                self._gate.gave_up(group)
        for each in due:
            result = results.get(each.effect.id)
            if self._traces is not None and result is not None:
                _trace(self._traces, each, result, began)
            free = each.effect.id in results  # it is known not to be done, or to be another worker's
            self._results.append(_unsent(each, free) if result is None else judge(each, result, rule))
        self._wake.set()

    async def _tell(self) -> bool:
        """Settle what came back. While the database is away it is kept: nothing is sent twice for that."""
        told = list(self._results)
        if told:
            try:
                await self._settle(told)
            except Exception as error:  # whatever it is: else no result would be told for ever after
                if _is_away(error):
                    raise
                log.error("courier.result", error=str(error), next="telling each by itself")
                for each in told:
                    await self._tell_one(each)
            del self._results[: len(told)]
            for each in told:
                self._flying.pop(each.due.effect.id, None)
        return bool(told)

    async def _tell_one(self, told: Told) -> None:
        """Without its vendor's id, if that cannot be stored: to send it again would make another, and so on."""
        for each in (told, replace(told, vendor_id=None)):
            try:
                await self._settle([each])
            except Exception as error:  # one that cannot be told keeps no other one waiting
                if _is_away(error):
                    raise
                log.error("courier.result", effect=str(told.due.effect.id), error=str(error))
            else:
                return

    async def _settle(self, told: Sequence[Told]) -> None:
        async with self._database.connection() as connection:
            await settle(connection, told, self._worker)
        await areach("courier.told")


def _trace(traces: Traces, due: Due, result: Delivery, began: int) -> None:
    """Tell how a request went; of what its vendor said, only the beginning: behind it may stand what was sent."""
    if due.execution is None or due.trace is None or isinstance(result, SlowDown):  # it was not tried
        return
    status = OK if isinstance(result, Delivered) else type(result).__name__.lower()
    said = "" if isinstance(result, Delivered) else str(result.reason).partition(":")[0][:MOST_SAID]
    about: dict[str, Any] = {
        "target": due.group.target,
        "attempt": due.effect.attempts + 1,
        "tenant": due.effect.tenant,
    }
    made = Made(due.effect.id, due.execution, due.trace, due.effect.attempts)
    name = f"{due.group.connector}.{due.group.operation}"
    traces.delivered(made, name, status, began, **about, **({"error": said} if said else {}))


def _is_away(error: Exception) -> bool:
    """The database could not say: it is told again."""
    return isinstance(error, psycopg.Error | OSError) and is_transient(error)


def _unsent(due: Due, free: bool) -> Told:
    """It did not leave: all is as it was. ``free``: nor is it in doubt any more, where nobody has marked it since."""
    return Told(due, "pending", due.effect.attempts, doubtful=due.doubtful and not free)
