"""The courier: delivers effects in order per record, at least once, each with its idempotency key."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import structlog

from circuit_script.clock import now
from circuit_script.connectors.connector import (
    Connector,
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Refused,
    Unknown,
)
from circuit_script.db.pool import Pool

log = structlog.get_logger()

GRACE = 0.5  # seconds for a request that ran out of time to say so

# Of each tenant and target that has room: the oldest effect of each order key, if it is due and not on its way;
# later ones wait behind it. Tenants take turns. Payloads are read last, of those that leave.
DUE = """
WITH RECURSIVE waiting AS (
    (SELECT e.tenant, e.connector, e.target FROM circuit.effects e WHERE e.status = 'pending'
     ORDER BY e.tenant, e.connector, e.target LIMIT 1)
    UNION ALL
    SELECT n.* FROM waiting w CROSS JOIN LATERAL (
        SELECT e.tenant, e.connector, e.target FROM circuit.effects e
        WHERE e.status = 'pending' AND (e.tenant, e.connector, e.target) > (w.tenant, w.connector, w.target)
        ORDER BY e.tenant, e.connector, e.target LIMIT 1) n
), first AS (
    SELECT h.id, row_number() OVER (PARTITION BY w.tenant ORDER BY h.next_at, h.id) AS turn
    FROM waiting w CROSS JOIN LATERAL (
        SELECT e.id, e.next_at FROM circuit.effects e
        WHERE e.status = 'pending' AND e.tenant = w.tenant AND e.connector = w.connector AND e.target = w.target
        AND e.next_at <= now() AND e.lane = ANY(%(lanes)s::smallint[]) AND e.id <> ALL(%(flying)s::uuid[])
        AND NOT EXISTS (
            SELECT 1 FROM circuit.effects p WHERE p.status = 'pending'
            AND p.tenant = e.tenant AND p.order_hash = e.order_hash AND p.id < e.id)
        ORDER BY e.next_at LIMIT %(room)s) h
    WHERE NOT EXISTS (
        SELECT 1 FROM unnest(%(full_connectors)s::text[], %(full_targets)s::text[]) AS f (connector, target)
        WHERE f.connector = w.connector AND f.target = w.target)
    ORDER BY turn, h.id LIMIT %(bulk)s
)
SELECT e.id, e.tenant, e.operation, e.target, e.record, e.payload, e.attempts, e.depth, e.connector, e.lane
FROM first JOIN circuit.effects e ON e.id = first.id ORDER BY first.turn, e.id
"""
SETTLE = """
WITH told AS (
    SELECT t.* FROM unnest(%s::uuid[], %s::text[], %s::smallint[], %s::timestamptz[], %s::text[], %s::smallint[],
                           %s::bigint[])
        AS t (id, status, attempts, next_at, reason, lane, epoch)
    JOIN circuit.lanes l ON l.lane = t.lane AND l.epoch = t.epoch AND l.owner = %s
), settled AS (
    UPDATE circuit.effects e
    SET status = told.status, attempts = told.attempts, next_at = told.next_at, reason = told.reason,
        settled_at = CASE WHEN told.status = 'pending' THEN NULL ELSE now() END
    FROM told WHERE e.id = told.id AND e.status = 'pending'
    RETURNING e.id, e.tenant, e.order_hash, e.execution, e.record, e.attempts, e.status, e.next_at, e.reason
), postponed AS (  -- those behind it cannot leave before it, and need not be looked at again and again
    UPDATE circuit.effects e SET next_at = s.next_at
    FROM settled s WHERE s.status = 'pending' AND e.status = 'pending'
    AND e.tenant = s.tenant AND e.order_hash = s.order_hash AND e.id > s.id AND e.next_at < s.next_at
)
INSERT INTO circuit.dead_letters (kind, tenant, effect, execution, record, attempts, reason)
SELECT 'effect', s.tenant, s.id, s.execution, s.record, s.attempts, coalesce(s.reason, '')
FROM settled s WHERE s.status IN ('dead', 'in_doubt')
"""


@dataclass(frozen=True, slots=True)
class CourierOptions:
    """``backoff`` is the first delay in seconds; it doubles up to an hour. ``poll`` is the longest sleep.

    ``room`` is how many effects may be on their way to one target at a time.
    """

    attempts: int = 8
    backoff: float = 2.0
    poll: float = 1.0
    bulk: int = 200
    room: int = 64


@dataclass(frozen=True, slots=True)
class _Due:
    effect: Effect
    connector: str
    lane: int
    epoch: int

    @property
    def target(self) -> tuple[str, str]:
        return self.connector, self.effect.target


@dataclass(frozen=True, slots=True)
class _Told:
    due: _Due
    status: str
    attempts: int
    next_at: datetime
    reason: str | None = None


class Courier:
    """Delivers the effects of the lanes that ``held`` returns (lane → epoch).

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
    ) -> None:
        self._database = database
        self._connectors = connectors
        self._worker = worker
        self._held = held
        self._options = options
        self._wake = asyncio.Event()
        self._stopping = False
        self._flying: dict[UUID, _Due] = {}  # until their results are told
        self._results: list[_Told] = []
        self._requests: dict[asyncio.Task[None], float] = {}  # → the loop's time by which each ends

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """Send nothing more. ``run`` ends when what is on its way has come back, or has used up its time."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                if not await self._safely(self._round) and not self._stopping:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self._options.poll)
            clock = asyncio.get_running_loop().time
            while self._requests and (left := max(self._requests.values()) - clock()) > 0:
                await asyncio.wait(self._requests, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                await self._safely(self._tell)
            await self._safely(self._tell)
        finally:
            for request in self._requests:
                request.cancel()

    async def _safely(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except Exception as error:  # the courier goes on, whatever it is
            log.warning("courier", error=repr(error), next="trying again")
            return False

    async def _round(self) -> bool:
        """Tell what came back and send what is due; True when more may be due."""
        await self._tell()
        due = await self._due()
        bulks: dict[tuple[str, str, str], list[_Due]] = {}
        flying = Counter(each.target for each in self._flying.values())
        for each in due:
            if flying[each.target] < self._options.room:
                flying[each.target] += 1
                bulks.setdefault((*each.target, each.effect.operation), []).append(each)
        for (name, _, operation), each_of in bulks.items():
            self._send(name, operation, each_of)
        return len(due) >= self._options.bulk

    async def _due(self) -> list[_Due]:
        epochs = dict(self._held())
        if not epochs:
            return []
        flying = Counter(each.target for each in self._flying.values())
        full = [target for target, n in flying.items() if n >= self._options.room]
        values = {
            "lanes": list(epochs),
            "flying": list(self._flying),
            "full_connectors": [connector for connector, _ in full],
            "full_targets": [target for _, target in full],
            "room": self._options.room,
            "bulk": self._options.bulk,
        }
        async with self._database.connection() as connection:
            rows = await (await connection.execute(DUE, values)).fetchall()
        return [_Due(Effect(*effect), connector, lane, epochs[lane]) for *effect, connector, lane in rows]

    def _send(self, name: str, operation: str, due: Sequence[_Due]) -> None:
        self._flying.update((each.effect.id, each) for each in due)
        connector = self._connectors.get(name)
        spec = connector.operations.get(operation) if connector else None
        if connector is None or spec is None:
            missing = Refused(f"there is no connector {name!r} with operation {operation!r}")
            self._results += [self._told(each, missing, InDoubt.REPEAT) for each in due]
            self._wake.set()
            return
        for start in range(0, len(due), spec.bulk):
            bulk = due[start : start + spec.bulk]
            request = asyncio.create_task(self._deliver(connector, spec, operation, bulk), name=f"courier to {name}")
            self._requests[request] = asyncio.get_running_loop().time() + spec.timeout + GRACE
            request.add_done_callback(self._requests.pop)

    async def _deliver(self, connector: Connector, spec: Operation, operation: str, due: Sequence[_Due]) -> None:
        effects = [each.effect for each in due]
        try:
            async with asyncio.timeout(spec.timeout):
                results = list(await connector.deliver(operation, effects))
            told = [self._told(each, result, spec.in_doubt) for each, result in zip(due, results, strict=True)]
        except Exception as error:  # a connector's fault settles its effects; the courier goes on
            log.warning("courier.connector", connector=connector.name, error=repr(error))
            unknown = Unknown(f"{type(error).__name__}: {error}")
            told = [self._told(each, unknown, spec.in_doubt) for each in due]
        self._results += told
        self._wake.set()

    def _told(self, due: _Due, result: Delivery, rule: InDoubt) -> _Told:
        attempts = due.effect.attempts + 1
        moment = now()
        match result:
            case Delivered():
                return _Told(due, "delivered", attempts, moment)
            case Refused(reason=reason):
                return _Told(due, "dead", attempts, moment, reason)
            case Unknown(reason=reason) if rule is not InDoubt.REPEAT:
                return _Told(due, "in_doubt", attempts, moment, reason)
            case Unknown(reason=reason) | Later(reason=reason) if attempts >= self._options.attempts:
                return _Told(due, "dead", attempts, moment, reason)
            case Unknown(reason=reason):
                after = self._delay(attempts)
            case Later(reason=reason, after=asked):
                after = max(asked or 0.0, self._delay(attempts))
        return _Told(due, "pending", attempts, moment + timedelta(seconds=after), reason)

    def _delay(self, attempts: int) -> float:
        step = min(3600.0, self._options.backoff * 2.0 ** (attempts - 1))
        return step * random.uniform(0.5, 1.0)  # spreads load, guards nothing

    async def _tell(self) -> bool:
        """Settle what came back. While the database is away it is kept: nothing is sent twice for that."""
        told = list(self._results)
        if told:
            try:
                await self._settle(told)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                log.error("courier.result", error=str(error), next="telling each by itself")
                for each in told:
                    await self._tell_one(each)
            del self._results[: len(told)]
            for each in told:
                self._flying.pop(each.due.effect.id, None)
        return bool(told)

    async def _tell_one(self, told: _Told) -> None:
        try:
            await self._settle([told])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            log.error("courier.result", effect=str(told.due.effect.id), error=str(error), next="sending it again")

    async def _settle(self, told: Sequence[_Told]) -> None:
        values = [
            [each.due.effect.id for each in told],
            [each.status for each in told],
            [each.attempts for each in told],
            [each.next_at for each in told],
            [_plain(each.reason) for each in told],
            [each.due.lane for each in told],
            [each.due.epoch for each in told],
            self._worker,
        ]
        async with self._database.connection() as connection:
            await connection.execute(SETTLE, values)


def _plain(reason: str | None) -> str | None:
    """Text that PostgreSQL takes: reasons quote what vendors answered."""
    return reason and reason.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
