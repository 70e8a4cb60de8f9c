"""Runs one batch: load, execute, settle."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog

from circuit_script.clock import now, uuid7
from circuit_script.db.pool import Pool
from circuit_script.effects.settle import Settled, Settlement, Settler
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import DatabaseUnavailable, Fenced, VersionConflict
from circuit_script.events import coalesce
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item, Loader, RowsLeft
from circuit_script.events.checkpoint import Checkpoints
from circuit_script.events.commit import Again, Committer, put_off, refusal, waits_of
from circuit_script.events.conclude import Batch, Terms, arrived_of, lost_line
from circuit_script.events.finalizers import Finalizers
from circuit_script.events.journal import BatchJournal
from circuit_script.events.recorder import Recorder as LiveRecorder
from circuit_script.events.screening import Screen, Verdicts, held_by, lines_of, plain_of, reason_of, without_held
from circuit_script.events.traced import begun, contexts_of, finished, only, with_trace
from circuit_script.events.verdicts import RecordEnd, RetryPolicy, Split, decided_of, in_step, settle_row, too_old
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import ALL_OR_NONE, Breached, Failed, HandlerSpec, Outcome, Succeeded, Work
from circuit_script.failpoints import areach
from circuit_script.governor import Usage
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.judgment.verdict import Action
from circuit_script.telemetry.spans import INTERNAL, Recorder
from circuit_script.telemetry.trace_writer import TraceWriter
from circuit_script.tenants.entitlement import FREE, NOTICE, UNLIMITED, Quotas, Refused, Ticket

log = structlog.get_logger()

LIVE = "SELECT release FROM circuit.live"
UNKNOWN_WAIT = 2.0
CHAIN = "it is the last of a chain of executions, of which each caused the next"
JUDGMENT = "circuit.judgment"  # the handler of log lines that tell what was found in texts
LOST_AT_MOST = 3
SUSPECTS_TRUSTED = 3  # in a row, before a batch is halved: a handler may name the wrong one each time


@dataclass(frozen=True, slots=True)
class RunnerParts:
    """What the runner works with."""

    database: Pool
    children: Children
    loader: Loader
    settler: Settler
    broker: BrokerParts
    log_line: Callable[[UUID, str, str, dict[str, Any]], None]
    sent: Callable[[], None]
    governor: CircuitGovernor = field(default_factory=CircuitGovernor)
    quotas: Quotas = UNLIMITED
    finalizers: Finalizers = field(default_factory=dict)
    traces: TraceWriter | None = None
    screen: Screen | None = None  # None: nothing is judged
    verdicts: VerdictCounts = field(default_factory=VerdictCounts)
    recordings: LiveRecorder | None = None  # None: nothing is recorded for shadows


class Runner:
    """Turns a batch of queue rows into one execution and its settlement."""

    def __init__(self, parts: RunnerParts, release: int, policy: RetryPolicy) -> None:
        self._parts = parts
        self._release = release
        self._policy = policy
        self._committer = Committer(parts.database, parts.settler, parts.sent, parts.finalizers)

    async def run(self, rows: list[Queued], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        """Execute ``rows`` as one batch of ``spec`` and settle them, unless their tenant's quota is used up.

        Raises psycopg.Error when the database was away before anything was executed.
        """
        if any(row.lane not in epochs for row in rows):
            return await self._committer.reread(rows)
        ticket = self._parts.quotas.admit(rows[0].tenant) if rows[0].object != NOTICE else FREE
        if ticket is None:
            found = await self._enter(rows)
            if isinstance(found, Again):
                return found
            ticket = found
        executed, began = False, time.monotonic()
        try:
            several = any(row.absorbed or row.before is not None for row in rows)
            loaded = await (coalesce.load(self._parts.loader, rows) if several else self._parts.loader.load(rows))
            await areach("run.before")
            executed = True
            again, executed = await self._run(rows, loaded, spec, epochs, ticket, began)
        except RowsLeft:
            return await self._committer.reread(rows)
        finally:
            if not executed:
                self._parts.quotas.give_back(ticket)
        return again

    async def _enter(self, rows: Sequence[Queued]) -> Ticket | Again:
        """Count it as an execution; or what is left to do where the tenant's quota is used up."""
        try:
            found = await self._parts.quotas.enter(rows[0].tenant)
        except DatabaseUnavailable:
            return Again(waits={(row.id, row.handler): (1.0, 300.0) for row in rows})
        if isinstance(found, Refused):
            return Again(waits={(row.id, row.handler): (0.0, 0.0) for row in rows}, parked=found.asks_again)
        return found

    async def _run(
        self,
        rows: list[Queued],
        loaded: tuple[list[Item], dict[int, str]],
        spec: HandlerSpec,
        epochs: Mapping[int, int],
        ticket: Ticket,
        began: float,
    ) -> tuple[Again, bool]:
        """Execute and settle what was loaded; and whether anything was executed."""
        items, unreadable = loaded
        if unreadable:
            again = await self.bury([rows[place] for place in unreadable], epochs, next(iter(unreadable.values())))
            if again.fenced:
                return await self._committer.reread(rows), False
            if len(unreadable) == len(rows):
                return again, False
            return Again(parts=[[place for place in range(len(rows)) if place not in unreadable]]), False
        spec = self._parts.governor.bound(spec, rows[0].tenant)
        if self._parts.screen is not None:
            items = await self._parts.screen.screened(items, echoes=spec.echoes)
        alive, first = await self._set_apart(items, spec, epochs)
        if first is not None:
            return await self._committer.reread(rows) if first.fenced else first, False
        if len(alive) == len(items):
            return await self._execute(items, spec, epochs, ticket, began), True
        if not alive:
            return Again(), False
        inner = await self._execute([items[place] for place in alive], spec, epochs, ticket, began)
        return replace(inner, parts=[[alive[place] for place in part] for part in inner.parts]), True

    async def _set_apart(
        self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]
    ) -> tuple[Sequence[int], Again | None]:
        """Settle what is not to run: echoes, what stands too deep in a chain, what is too old, and texts that are taken
        for attacks. The places of the others; or what is left to do, when they cannot run together."""
        ceiling = spec.limits.depth
        echoes = [] if spec.echoes else [place for place, item in enumerate(items) if item.echo]
        deep = [place for place, item in enumerate(items) if item.depth >= ceiling and (spec.echoes or not item.echo)]
        alive: Sequence[int] = range(len(items))
        old = self._old(items, spec, {*echoes, *deep})
        judged = self._held(items, {*echoes, *deep, *old})
        for places, settle in (
            (echoes, self._settle_echoes),
            (deep, self._settle_deep),
            (old, self._settle_old),
            (judged, self._settle_held),
        ):
            if not places:
                continue
            again = await settle([items[place] for place in places], spec, epochs)
            alive = [place for place in alive if place not in set(places)]
            if again.fenced:
                return (), again
            if again.parts or again.waits:  # the database refuses what one of them brought
                parts = [[places[place] for place in part] for part in again.parts]
                return (), Again([*parts, *([alive] if alive else [])], again.waits)
        depths = dict.fromkeys(items[place].depth for place in alive)
        if len(depths) > 1:  # echoes: how deep they are was not known when the batch was cut
            return alive, Again(parts=[[place for place in alive if items[place].depth == each] for each in depths])
        return alive, None

    @staticmethod
    def _old(items: Sequence[Item], spec: HandlerSpec, others: Container[int]) -> list[int]:
        """The places of those that are too old."""
        if spec.max_age is None:
            return []
        moment = now()
        old = [place for place, item in enumerate(items) if too_old(item.row, spec.max_age, moment) is not None]
        return [place for place in old if place not in others]

    @staticmethod
    def _held(items: Sequence[Item], others: Container[int]) -> list[int]:
        """The places of those that are taken for attacks."""
        held = [place for place, item in enumerate(items) if item.verdicts and held_by(item) is not None]
        return [place for place in held if place not in others]

    async def retire(self, rows: list[Queued], epochs: Mapping[int, int], reason: str) -> Again:
        """Bury rows whose handler this release does not have; but while another release is live, they wait for it."""
        async with self._parts.database.connection() as connection:
            row = await (await connection.execute(LIVE)).fetchone()
        if row is not None and row[0] == self._release:
            return await self.bury(rows, epochs, reason)
        log.warning("handler.unknown", rows=len(rows), cure="Another release is live: restart this worker with it.")
        return Again(waits={(each.id, each.handler): (UNKNOWN_WAIT, 300.0) for each in rows})

    async def reread(self, rows: Sequence[Queued]) -> Again:
        """Nothing was run of these: those that still wait in the queue come again."""
        return await self._committer.reread(rows)

    async def bury(self, rows: list[Queued], epochs: Mapping[int, int], reason: str) -> Again:
        """Rows that cannot be run at all become dead letters."""
        if any(row.lane not in epochs for row in rows):
            return await self._committer.reread(rows)
        end = RecordEnd(reason)
        dead = [replace(settle_row(row, end, self._policy, now()), status="dead", not_before=None) for row in rows]
        return await self._commit(self._terms(epochs).settlement(rows, "failed", dead, reason=reason), rows)

    async def _settle_echoes(self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        rows = [item.row for item in items]
        settled = [replace(settle_row(row, None, self._policy, now()), status="echo") for row in rows]
        settled += coalesce.superseded(rows, now())
        settlement = self._terms(epochs).settlement(rows, "echo", settled)
        return await self._commit(replace(settlement, arrived=[arrived_of(item) for item in items]), rows)

    async def _settle_old(self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        """Events that are too old for their trigger are cancelled; what they brought of their records is kept."""
        rows, moment = [item.row for item in items], now()
        ends = [RecordEnd(too_old(row, spec.max_age, moment) or "it is too old", cancelled=True) for row in rows]
        settled = [settle_row(row, end, self._policy, moment) for row, end in zip(rows, ends, strict=True)]
        settled += coalesce.superseded(rows, moment)
        settlement = self._terms(epochs).settlement(rows, "cancelled", settled, reason=ends[0].reason)
        return await self._commit(replace(settlement, arrived=[arrived_of(item) for item in items]), rows)

    async def _settle_deep(self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        """Events at the end of a chain that would go on for ever are dead letters; nothing of them runs."""
        rows, ceiling, depths = [item.row for item in items], spec.limits.depth, [item.depth + 1 for item in items]
        breaches = [Breached("depth", depth, ceiling, Usage(depth=depth), said=CHAIN) for depth in depths]
        ends = [RecordEnd(each.reason, final=True) for each in breaches]
        settled = [settle_row(row, end, self._policy, now()) for row, end in zip(rows, ends, strict=True)]
        settlement = self._terms(epochs).settlement(rows, "breached", settled, reason=ends[0].reason)
        usage, arrived = Usage(depth=max(depths)).as_dict(), [arrived_of(item) for item in items]
        return await self._commit(replace(settlement, arrived=arrived, usage=usage), rows)

    async def _settle_held(self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int]) -> Again:
        """Records with a text that is taken for an attack are dead letters, for a person to look at; what else they
        brought is kept."""
        rows, moment, execution = [item.row for item in items], now(), uuid7()
        ends = [RecordEnd(reason_of(item) or "it is held", final=True) for item in items]
        settled = [settle_row(row, end, self._policy, moment) for row, end in zip(rows, ends, strict=True)]
        for item, end in zip(items, ends, strict=True):
            settled += self._older_than(item, end, moment)
        settlement = self._terms(epochs).settlement(rows, "held", settled, execution=execution, reason=ends[0].reason)
        # Of the event before it: once it is retried, the rest of what it brought comes, too.
        arrived = [replace(arrived_of(each), fields=without_held(each), seq=each.row.arrived - 1) for each in items]
        again = await self._commit(replace(settlement, arrived=arrived), rows)
        if not (again.fenced or again.parts):
            self._tell(execution, items)
        return again

    def _older_than(self, item: Item, end: RecordEnd, moment: datetime) -> list[Settled]:
        """The end of the older updates that a held one stands for. What brought such a text is a letter of its own:
        that of the newest would not bring it along."""
        gone = item.incoming.keys() - without_held(item).keys()
        letters = {each.row.id for each in item.older if gone & each.incoming.keys()}
        settled = zip(item.row.absorbed, coalesce.superseded([item.row], moment), strict=True)
        return [settle_row(row, end, self._policy, moment) if row.id in letters else each for row, each in settled]

    def _tell(self, execution: UUID, items: Sequence[Item]) -> None:
        """Log and count what was found in these records, once for each event and handler."""
        for item in items:
            row = item.row
            if item.verdicts and not (row.attempts or row.splits or row.lost):
                self._parts.verdicts.add("record", gravest(item.verdicts))
                for line in lines_of(item):
                    self._parts.log_line(execution, JUDGMENT, row.tenant, with_trace(line, None))

    async def _execute(
        self, items: Sequence[Item], spec: HandlerSpec, epochs: Mapping[int, int], ticket: Ticket, began: float
    ) -> Again:
        rows = [item.row for item in items]
        work = _work(items, spec)
        unit = UnitOfWork(work.object, [row.record for row in rows], [_contact(item) for item in items])
        contexts = contexts_of(items)
        batch = Batch(work, items, unit, self._terms(epochs, spec), trace=only(contexts))
        if (live := self._parts.recordings) is not None and live.sampling:
            batch.tape = live.begin(self._release)
            if batch.tape is not None:
                batch.tape.start(work, unit.contacts)
        self._tell(work.execution, items)
        recorder = begun(self._parts.traces, work, contexts, time.monotonic() - began)
        journal = BatchJournal(rows, self._parts.database)
        checkpoints = Checkpoints(batch, journal, self._committer)
        broker = self._broker(batch, journal, checkpoints, recorder)
        batch.usage, batch.put_off = broker.usage, broker.put_off
        try:
            outcome = await checkpoints.watch(self._parts.children.run(work, broker))
            await areach("run.handled")
        finally:
            broker.close()
        if outcome is None:
            return await self._committer.reread(rows)
        rest = batch.rows
        away = broker.away is not None or (checkpoints.stalled and not isinstance(outcome, Succeeded))
        lost = away or (isinstance(outcome, Failed) and outcome.blameless)
        lost = bool(lost and rest and _may_be_lost_again(rest))
        if lost or (isinstance(outcome, Failed) and outcome.disturbed):
            self._parts.quotas.give_back(ticket)  # it counts once, when it runs again
        if lost:
            log.warning("execution.lost", execution=str(work.execution), next="it runs again")
            again = Again(waits={(row.id, row.handler): (0.5, 300.0) for row in rest})
        else:
            again = await self._traced(batch, outcome, recorder)
        if again.fenced:
            return await self._committer.reread(rows) if batch.waiting else again
        parts = [[place + batch.settled for place in part] for part in again.parts]
        return Again(parts, {**waits_of(batch.waiting), **again.waits})

    async def _traced(self, batch: Batch, outcome: Outcome, recorder: Recorder | None) -> Again:
        """Conclude, and hand the trace on once what it tells of is committed."""
        traces = self._parts.traces
        if recorder is None or traces is None:
            return await self._conclude(batch, outcome)
        commit = recorder.begin("commit", INTERNAL, {})
        again = await self._conclude(batch, outcome)
        commit.end()
        if not again.fenced:
            finished(traces, recorder, batch, outcome)
        return again

    def _broker(
        self, batch: Batch, journal: BatchJournal, checkpoints: Checkpoints, recorder: Recorder | None
    ) -> ExecutionBroker:
        started, work, tape = time.monotonic(), batch.work, batch.tape
        return ExecutionBroker(
            work,
            self._parts.broker,
            held=batch.unit,
            journal=journal if tape is None else tape.journal(journal),
            log=lambda line: self._parts.log_line(
                work.execution, work.handler, work.tenant, with_trace(line, batch.trace)
            ),
            remaining=lambda: started + work.limits.wall_time - time.monotonic(),
            checkpoint=checkpoints.take,
            recorder=recorder,
            tape=tape,
        )

    async def _conclude(self, batch: Batch, outcome: Outcome) -> Again:
        """Settle what no checkpoint has settled; parts count from the first of these records."""
        rows = batch.rows
        trust = all(row.splits < SUSPECTS_TRUSTED for row in rows)
        verdict = batch.verdict(outcome, trust=trust)
        if isinstance(verdict, Split) and not (isinstance(outcome, Failed) and outcome.disturbed):
            for row in rows:
                row.splits += 1
        if lost := batch.lost(outcome, verdict):
            work, line = batch.work, with_trace(lost_line(lost), batch.trace)
            self._parts.log_line(work.execution, work.handler, work.tenant, line)
        settlement = batch.concluded(outcome, verdict)
        try:
            again = await self._commit(settlement, rows, batch)
        except VersionConflict as conflict:
            batch.tape = None  # nobody who runs on what was read would meet it
            if not isinstance(outcome, Succeeded):  # what did not succeed writes nothing
                raise
            errors = batch.conflicting(conflict) | dict(outcome.errors)
            return await self._conclude(batch, replace(outcome, errors=errors))
        if again.fenced:
            return again
        if isinstance(verdict, Split):
            return Again(parts=verdict.parts)
        self._keep(batch, decided_of(verdict.failures), settlement)
        return again

    def _keep(self, batch: Batch, decided: Mapping[int, float | None], settlement: Settlement) -> None:
        """Hand on what was recorded of an execution that has concluded."""
        if (tape := batch.tape) is None or self._parts.recordings is None:
            return
        decided = {place + batch.settled: after for place, after in decided.items()}
        tape.left(settlement, batch.settled, len(batch.items) - batch.settled, decided)
        self._parts.recordings.keep(tape, tape.ended(settlement.status, settlement.reason, settlement.usage))

    def _terms(self, epochs: Mapping[int, int], spec: HandlerSpec | None = None) -> Terms:
        if spec is None:
            return Terms(self._release, epochs, self._policy)
        return Terms(self._release, epochs, self._policy.of(spec.retries), spec.batch == ALL_OR_NONE)

    async def _commit(self, settlement: Settlement, rows: Sequence[Queued], batch: Batch | None = None) -> Again:
        """Commit, and learn what it says for each row. ``batch`` is what was executed."""
        try:
            await self._committer.settle(settlement)
        except Fenced:
            return await self._committer.reread(rows)
        except psycopg.Error as error:
            return await self._poisoned(settlement, rows, error, batch)
        coalesce.forget(rows, settlement.rows, batch.items if batch is not None else ())
        return Again(waits=waits_of(put_off(rows, settlement.rows)))

    async def _poisoned(
        self, settlement: Settlement, rows: Sequence[Queued], error: psycopg.Error, batch: Batch | None
    ) -> Again:
        """The database refuses what the execution wrote: that is the execution's failure."""
        if not (settlement.arrived or settlement.writes or settlement.sends):
            raise error
        if batch is not None:
            batch.tape = None  # what becomes of it is the database's word
        terms = batch.terms if batch is not None else None
        if len(rows) > 1 and not (terms is not None and terms.together):
            middle = len(rows) // 2
            return Again(parts=[range(middle), range(middle, len(rows))])
        reason, policy = refusal(error), self._policy if terms is None else terms.policy
        failed = in_step([settle_row(row, RecordEnd(reason), policy, now()) for row in rows])
        bare = replace(settlement, status="failed", reason=reason, rows=failed, arrived=(), writes=(), sends=())
        return await self._commit(bare, rows)


def gravest(verdicts: Verdicts) -> Action:
    """What a record's verdicts come to."""
    said = {each.action for each in verdicts.values()}
    return next(each for each in reversed(Action) if each in said)


def _may_be_lost_again(rows: Sequence[Queued]) -> bool:
    """A handler that ends its host each time is to blame after all."""
    for row in rows:
        row.lost += 1
    return all(row.lost <= LOST_AT_MOST for row in rows)


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
        concurrency=1 if any(item.row.alone for item in items) else spec.concurrency,
        egress=spec.egress,
        depth=items[0].depth + 1,
        verdicts={place: plain_of(item.verdicts) for place, item in enumerate(items) if item.verdicts},
        budget=spec.budget,
        at_ceiling=spec.at_ceiling,
        allow_irreversible=spec.allow_irreversible,
    )


def _contact(item: Item) -> str | None:
    contact = item.incoming.get("contactId")
    return contact if isinstance(contact, str) else None
