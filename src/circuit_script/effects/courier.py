"""The courier: delivers effects in order per record, at least once, each with its idempotency key."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
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
    Refused,
    Unknown,
)
from circuit_script.db.pool import Pool

log = structlog.get_logger()

# The oldest effect of each order key, if it is due: later ones wait behind it. Tenants take turns.
DUE = """
SELECT h.id, h.tenant, h.operation, h.target, h.record, h.payload, h.attempts, h.connector, h.lane
FROM (
    SELECT DISTINCT ON (e.tenant, e.order_hash) e.*
    FROM circuit.effects e
    WHERE e.status = 'pending' AND e.lane = ANY(%s::smallint[])
    ORDER BY e.tenant, e.order_hash, e.id) h
WHERE h.next_at <= now()
ORDER BY row_number() OVER (PARTITION BY h.tenant ORDER BY h.id), h.id LIMIT %s
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
    RETURNING e.id, e.tenant, e.execution, e.record, e.attempts, e.status, e.reason
)
INSERT INTO circuit.dead_letters (kind, tenant, effect, execution, record, attempts, reason)
SELECT 'effect', s.tenant, s.id, s.execution, s.record, s.attempts, coalesce(s.reason, '')
FROM settled s WHERE s.status IN ('dead', 'in_doubt')
"""


@dataclass(frozen=True, slots=True)
class CourierOptions:
    """``backoff`` is the first delay in seconds; it doubles up to an hour. ``poll`` is the longest sleep."""

    attempts: int = 8
    backoff: float = 2.0
    poll: float = 1.0
    bulk: int = 200


@dataclass(frozen=True, slots=True)
class _Due:
    effect: Effect
    connector: str
    lane: int


@dataclass(frozen=True, slots=True)
class _Told:
    id: UUID
    status: str
    attempts: int
    next_at: datetime
    reason: str | None
    lane: int


class Courier:
    """Delivers the effects of the lanes that ``held`` returns (lane → epoch)."""

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

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End after the round that is under way; what is pending stays in the database."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                busy = await self._round()
            except (psycopg.Error, OSError) as error:
                log.warning("courier.database", error=str(error), next="trying again")
                busy = False
            if not busy and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._options.poll)

    async def _round(self) -> bool:
        """Deliver what is due once; True when something was."""
        epochs = dict(self._held())
        due = await self._due(epochs)
        if not due:
            return False
        kinds: dict[tuple[str, str], list[_Due]] = {}
        for each in due:
            kinds.setdefault((each.connector, each.effect.operation), []).append(each)
        rounds = [self._deliver(name, operation, each) for (name, operation), each in kinds.items()]
        told = [each for part in await asyncio.gather(*rounds) for each in part]
        await self._tell(told, epochs)
        return True

    async def _due(self, epochs: Mapping[int, int]) -> list[_Due]:
        """The first due effect of each record; later ones of the same record follow in the next round."""
        if not epochs:
            return []
        async with self._database.connection() as connection:
            rows = await (await connection.execute(DUE, [list(epochs), self._options.bulk])).fetchall()
        return [_Due(Effect(*effect), connector, lane) for *effect, connector, lane in rows]

    async def _deliver(self, name: str, operation: str, due: Sequence[_Due]) -> list[_Told]:
        connector = self._connectors.get(name)
        spec = connector.operations.get(operation) if connector else None
        if connector is None or spec is None:
            missing = Refused(f"there is no connector {name!r} with operation {operation!r}")
            return [self._told(each, missing, InDoubt.REPEAT) for each in due]
        effects = [each.effect for each in due]
        try:
            async with asyncio.timeout(spec.timeout):
                results = list(await connector.deliver(operation, effects))
            if len(results) != len(effects):
                raise ValueError(f"{len(results)} results for {len(effects)} effects")
        except Exception as error:  # a connector's fault settles its effects; the courier goes on
            log.warning("courier.connector", connector=name, error=repr(error))
            results = [Unknown(f"{type(error).__name__}: {error}")] * len(effects)
        return [self._told(each, result, spec.in_doubt) for each, result in zip(due, results, strict=True)]

    def _told(self, due: _Due, result: Delivery, rule: InDoubt) -> _Told:
        attempts = due.effect.attempts + 1
        moment = now()
        match result:
            case Delivered():
                return _Told(due.effect.id, "delivered", attempts, moment, None, due.lane)
            case Refused(reason=reason):
                return _Told(due.effect.id, "dead", attempts, moment, reason, due.lane)
            case Unknown(reason=reason) if rule is not InDoubt.REPEAT:
                return _Told(due.effect.id, "in_doubt", attempts, moment, reason, due.lane)
            case Unknown(reason=reason) | Later(reason=reason) if attempts >= self._options.attempts:
                return _Told(due.effect.id, "dead", attempts, moment, reason, due.lane)
            case Unknown(reason=reason):
                after = self._delay(attempts)
            case Later(reason=reason, after=asked):
                after = max(asked or 0.0, self._delay(attempts))
        return _Told(due.effect.id, "pending", attempts, moment + timedelta(seconds=after), reason, due.lane)

    def _delay(self, attempts: int) -> float:
        step = min(3600.0, self._options.backoff * 2.0 ** (attempts - 1))
        return step * random.uniform(0.5, 1.0)  # spreads load, guards nothing

    async def _tell(self, told: Sequence[_Told], epochs: Mapping[int, int]) -> None:
        values = [
            [each.id for each in told],
            [each.status for each in told],
            [each.attempts for each in told],
            [each.next_at for each in told],
            [_plain(each.reason) for each in told],
            [each.lane for each in told],
            [epochs[each.lane] for each in told],
            self._worker,
        ]
        async with self._database.connection() as connection:
            await connection.execute(SETTLE, values)


def _plain(reason: str | None) -> str | None:
    """Text that PostgreSQL takes: reasons quote what vendors answered."""
    return reason and reason.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
