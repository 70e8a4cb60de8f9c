"""Runs one batch: load, execute, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import structlog

from circuit_script.clock import now, uuid7
from circuit_script.connectors.connector import CRM
from circuit_script.db.pool import Pool
from circuit_script.effects.settle import Arrived, Settled, Settlement, Settler, is_transient
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import Fenced
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item, Loader
from circuit_script.events.journal import BatchJournal
from circuit_script.events.reader import QueueReader
from circuit_script.events.verdicts import Finished, RetryPolicy, Split, judge, settle_row
from circuit_script.execution.broker import ExecutionBroker
from circuit_script.execution.outcome import Breached, Failed, HandlerSpec, Outcome, Work
from circuit_script.execution.pool import Pool as Children

log = structlog.get_logger()

RowKey = tuple[int, int]
MAX_DETAIL = 8000
LIVE = "SELECT release FROM circuit.live"
UNKNOWN_WAIT = 2.0
LOST_AT_MOST = 3
SUSPECTS_TRUSTED = 3  # in a row, before a batch is halved: a handler may name the wrong one each time


@dataclass(frozen=True, slots=True)
class Again:
    """What is left to do of a batch: ``parts`` (indices) run apart, ``waits`` maps a row to (wait, hold) seconds.

    Rows that are in neither have left the queue, or belong to another worker.
    """

    parts: Sequence[Sequence[int]] = ()
    waits: Mapping[RowKey, tuple[float, float]] = field(default_factory=dict)
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class RunnerParts:
    """What the runner works with."""

    database: Pool
    children: Children
    loader: Loader
    settler: Settler
    crm: CRM
    client: httpx.AsyncClient
    knows: Callable[[str, str], bool]
    log_line: Callable[[UUID, str, str, dict[str, Any]], None]
    sent: Callable[[], None]


class Runner:
    """Turns a batch of queue rows into one execution and its settlement."""

    def __init__(self, parts: RunnerParts, release: int, policy: RetryPolicy) -> None:
        self._parts = parts
        self._release = release
        self._policy = policy

    async def run(self, rows: list[Queued], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        """Execute ``rows`` as one batch of ``spec`` and settle them.

        Raises psycopg.Error when the database was away before anything was executed.
        """
        if any(row.lane not in epochs for row in rows):
            return await self._reread(rows)
        items, unreadable = await self._parts.loader.load(rows)
        if unreadable:
            again = await self.bury([rows[place] for place in unreadable], epochs, next(iter(unreadable.values())))
            if again.fenced:
                return await self._reread(rows)
            if len(unreadable) == len(rows):
                return again
            return Again(parts=[[place for place in range(len(rows)) if place not in unreadable]])
        echoes = [] if spec.echoes else [place for place, item in enumerate(items) if item.echo]
        if echoes:
            again = await self._settle_echoes([items[place] for place in echoes], epochs)
            if again.fenced:
                return await self._reread(rows)
            alive = [place for place in range(len(items)) if place not in set(echoes)]
            if not alive:
                return Again()
            inner = await self._execute([items[place] for place in alive], spec, epochs)
            return replace(inner, parts=[[alive[place] for place in part] for part in inner.parts])
        return await self._execute(items, spec, epochs)

    async def retire(self, rows: list[Queued], epochs: Mapping[int, int], reason: str) -> Again:
        """Bury rows whose handler this release does not have; but while another release is live, they wait for it."""
        async with self._parts.database.connection() as connection:
            row = await (await connection.execute(LIVE)).fetchone()
        if row is not None and row[0] == self._release:
            return await self.bury(rows, epochs, reason)
        log.warning("handler.unknown", rows=len(rows), cure="Another release is live: restart this worker with it.")
        return Again(waits={(each.id, each.handler): (UNKNOWN_WAIT, 300.0) for each in rows})

    async def bury(self, rows: list[Queued], epochs: Mapping[int, int], reason: str) -> Again:
        """Rows that cannot be run at all become dead letters."""
        if any(row.lane not in epochs for row in rows):
            return await self._reread(rows)
        dead = [replace(settle_row(row, reason, self._policy, now()), status="dead", not_before=None) for row in rows]
        return await self._commit(self._settlement(rows, "failed", dead, epochs, reason=reason), rows)

    async def _settle_echoes(self, items: Sequence[Item], epochs: Mapping[int, int]) -> Again:
        rows = [item.row for item in items]
        settled = [replace(settle_row(row, None, self._policy, now()), status="echo") for row in rows]
        settlement = self._settlement(rows, "echo", settled, epochs)
        return await self._commit(replace(settlement, arrived=[_arrived(item) for item in items]), rows)

    async def _execute(self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        rows = [item.row for item in items]
        work = _work(items, spec)
        started = time.monotonic()
        unit = UnitOfWork(
            work.object,
            [row.record for row in rows],
            [_contact(item) for item in items],
        )
        broker = ExecutionBroker(
            work,
            crm=self._parts.crm,
            held=unit,
            journal=BatchJournal(rows, self._parts.database),
            client=self._parts.client,
            knows=self._parts.knows,
            log=lambda line: self._parts.log_line(work.execution, spec.name, work.tenant, line),
            remaining=lambda: started + work.limits.wall_time - time.monotonic(),
        )
        outcome = await self._parts.children.run(work, broker)
        lost = (isinstance(outcome, Failed) and outcome.blameless) or broker.database_away
        if lost and _may_be_lost_again(rows):
            log.warning("execution.lost", execution=str(work.execution), next="it runs again")
            return Again(waits={(row.id, row.handler): (0.5, 300.0) for row in rows})
        trust = all(row.splits < SUSPECTS_TRUSTED for row in rows)
        verdict = judge(outcome, len(rows), unattributed=unit.unattributed, trust=trust)
        if isinstance(verdict, Split):
            for row in rows:
                row.splits += 1
        settlement = self._concluded(work, items, unit, outcome, verdict, epochs)
        again = await self._commit(settlement, rows)
        if again.fenced or isinstance(verdict, Finished):
            return again
        return Again(parts=verdict.parts)

    def _concluded(
        self,
        work: Work,
        items: Sequence[Item],
        unit: UnitOfWork,
        outcome: Outcome,
        verdict: Finished | Split,
        epochs: Mapping[int, int],
    ) -> Settlement:
        rows = [item.row for item in items]
        settled: list[Settled] = []
        if isinstance(verdict, Finished):
            moment = now()
            settled = [
                settle_row(row, verdict.failures.get(place), self._policy, moment) for place, row in enumerate(rows)
            ]
            writes, sends = unit.surviving(verdict.failures.keys())
        else:
            writes, sends = [], []
        base = self._settlement(rows, verdict.status, settled, epochs, execution=work.execution)
        leaving = [(row, item) for row, item in zip(settled, items, strict=False) if row.status != "retry"]
        return replace(
            base,
            reason=outcome.reason if isinstance(outcome, Failed | Breached) else _first(verdict),
            detail=outcome.detail[-MAX_DETAIL:] if isinstance(outcome, Failed) else None,
            started_at=datetime.fromtimestamp(work.started_at, UTC),
            usage=outcome.usage.as_dict(),
            arrived=[_arrived(item) for _, item in leaving],
            writes=writes,
            sends=[(send, *self._place(send.owner, rows)) for send in sends],
        )

    @staticmethod
    def _place(owner: int | None, rows: Sequence[Queued]) -> tuple[int, int]:
        row = rows[owner or 0]
        return row.lane, row.order_hash

    def _settlement(
        self,
        rows: Sequence[Queued],
        status: str,
        settled: Sequence[Settled],
        epochs: Mapping[int, int],
        *,
        execution: UUID | None = None,
        reason: str | None = None,
    ) -> Settlement:
        head = rows[0]
        return Settlement(
            execution=execution or uuid7(),
            tenant=head.tenant,
            release=self._release,
            handler=head.handler,
            object=head.object,
            event=head.event,
            records=len(rows),
            status=status,
            started_at=now(),
            usage={},
            reason=reason,
            epochs={row.lane: epochs[row.lane] for row in rows},
            rows=settled,
        )

    async def _commit(self, settlement: Settlement, rows: Sequence[Queued]) -> Again:
        """Commit, and learn what it says for each row. A lost connection leaves it open whether the commit
        happened; then it is tried again, and who finds the rows gone knows that it had."""
        delay, doubtful = 0.1, False
        while True:
            try:
                await self._parts.settler.settle(settlement)
            except Fenced as fenced:
                if not doubtful:
                    log.warning("settle.fenced", execution=str(settlement.execution), reason=str(fenced))
                return await self._reread(rows)
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not is_transient(error):
                    return await self._poisoned(settlement, rows, error)
                log.warning("settle.database", error=str(error), next="trying again")
                doubtful = True
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)
            else:
                break
        if settlement.sends:
            self._parts.sent()
        waits = {}
        for row, settled in zip(rows, settlement.rows, strict=False):
            if settled.status == "retry":
                row.attempts, row.not_before, row.held_until = settled.attempts, settled.not_before, settled.held_until
                row.journal.clear()  # what belongs to one record stands in the table; the rest was for this batch
                row.recovered, row.splits = True, 0
                waits[row.id, row.handler] = _left(row)
        return Again(waits=waits)

    async def _poisoned(self, settlement: Settlement, rows: Sequence[Queued], error: psycopg.Error) -> Again:
        """The database refuses what the execution wrote: that is the execution's failure."""
        reason = f"the database refused the outcome: {error.diag.message_primary or error}"
        log.error("settle.refused", execution=str(settlement.execution), error=reason)
        if not (settlement.arrived or settlement.writes or settlement.sends):
            raise error
        if len(rows) > 1:
            middle = len(rows) // 2
            return Again(parts=[range(middle), range(middle, len(rows))])
        failed = [settle_row(rows[0], reason, self._policy, now())]
        bare = replace(
            settlement, status="failed", reason=reason, rows=failed, arrived=(), writes=(), sends=(), execution=uuid7()
        )
        return await self._commit(bare, rows)

    async def _reread(self, rows: Sequence[Queued]) -> Again:
        """After a fence: rows that still wait run again if their lane is still ours (the backlog knows)."""
        async with self._parts.database.connection() as connection:
            still = await QueueReader().again(connection, [row.id for row in rows])
        waits = {}
        for row in rows:
            found = still.get((row.id, row.handler))
            if found is not None:
                row.attempts, row.not_before, row.held_until = found.attempts, found.not_before, found.held_until
                wait, hold = _left(row)
                waits[row.id, row.handler] = (max(wait, 0.05), max(hold, 1.0))
        return Again(waits=waits, fenced=True)


def _may_be_lost_again(rows: Sequence[Queued]) -> bool:
    """A handler that ends its host each time is to blame after all."""
    for row in rows:
        row.lost += 1
    return all(row.lost <= LOST_AT_MOST for row in rows)


def _left(row: Queued) -> tuple[float, float]:
    """Seconds until the row's next attempt, and for which it holds its order key."""
    moment = now()
    wait = (row.not_before - moment).total_seconds() if row.not_before else 0.0
    hold = (row.held_until - moment).total_seconds() if row.held_until else 0.0
    return max(wait, 0.0), max(hold, 0.0)


def _first(verdict: Finished | Split) -> str | None:
    return next(iter(verdict.failures.values()), None) if isinstance(verdict, Finished) else None


def _work(items: Sequence[Item], spec: HandlerSpec) -> Work:
    row = items[0].row
    return Work(
        execution=uuid7(),
        handler=spec.name,
        tenant=row.tenant,
        object=row.object,
        event=row.event,
        records=[item.record for item in items],
        old=[item.old for item in items],
        events=[item.meta for item in items],
        limits=spec.limits,
        started_at=time.time(),
        share_child=spec.share_child,
    )


def _contact(item: Item) -> str | None:
    contact = item.incoming.get("contactId")
    return contact if isinstance(contact, str) else None


def _arrived(item: Item) -> Arrived:
    row = item.row
    return Arrived(row.object, row.record, item.incoming, row.id, row.event == "afterDelete")
