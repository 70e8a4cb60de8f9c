"""Trial: one handler run by hand, with the real children, broker, limits and CRM.

What a trial leaves out of the road: the ledger and the queue. So nothing is tried again, and a batch that fails as a
whole is not taken apart; the result names the record that the road would run alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.connectors.connector import Fields, Query
from circuit_script.connectors.homes import LOCAL
from circuit_script.connectors.query import equal, orders
from circuit_script.connectors.reading import rows_of
from circuit_script.db.pool import unavailable
from circuit_script.effects.settle import Settlement, Settler, is_transient
from circuit_script.effects.unit import Send, Write
from circuit_script.errors import TrialRefused, VersionConflict
from circuit_script.events.run import JUDGMENT
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.broker.callouts.transport import open_client
from circuit_script.execution.outcome import HandlerSpec, Outcome, Work
from circuit_script.releases import Release, record_release
from circuit_script.secrets import open_secrets
from circuit_script.telemetry import LogWriter
from circuit_script.telemetry.redact import Redactor
from circuit_script.tenants import DEFAULT
from circuit_script.wiring.bench import Bench, open_bench
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.deliveries import open_deliveries_client
from circuit_script.wiring.homes import Housing, make_housing
from circuit_script.wiring.models import make_models, open_providers_client
from circuit_script.wiring.trial_again import Again, KeptJournal
from circuit_script.wiring.trial_batch import Attempt, Given, TrialBroker, TrialJournal, as_json
from circuit_script.wiring.trial_call import Calling, collected
from circuit_script.wiring.trial_faults import COMMIT, KINDS, WORKER, Faults, FaultyCRM
from circuit_script.wiring.trial_ground import SETTLING, Ground, Opened, open_ground
from circuit_script.wiring.trial_handler import named, route_of
from circuit_script.wiring.trial_judgment import Held, Judging, Route
from circuit_script.wiring.trial_result import TrialBatch, TrialResult

Records = Mapping[str, Any] | Sequence[Mapping[str, Any]]

DRY = "a dry run makes no callouts"
NEXT_EVENTS = "SELECT nextval('circuit.event_ids') FROM generate_series(1, %s)"
SEED = """
INSERT INTO circuit.records (tenant, object, id, data, seq)
SELECT %s, %s, s.id, s.data, nextval('circuit.event_ids') FROM unnest(%s::text[], %s::jsonb[]) AS s (id, data)
ON CONFLICT (tenant, object, id) DO UPDATE
SET data = excluded.data, before = NULL, written = '{}', seq = excluded.seq, deleted = false
"""


class Trial(Opened):
    """Runs handlers of one app by hand, on a migrated database.

    ``bench`` is used and not closed; without one the trial has its own. ``callouts`` answers in the place of the
    network. Without ``keep_logs`` the lines of the log are in the result only.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        bench: Bench | None = None,
        callouts: Callouts | None = None,
        keep_logs: bool = True,
        source: str = "trial",
    ) -> None:
        super().__init__()
        self._settings = settings
        self._url = url
        self._given_bench = bench
        self._callouts = callouts
        self._keep_logs = keep_logs
        self._source = source
        self._housing: Housing | None = None
        self.ahead = 0.0  # seconds by which handlers find it later than it is
        self._judging = Judging(settings)
        self.faults = Faults({each.url.rstrip("/") for each in settings.llm.providers.values()})
        if callouts is not None:
            callouts.breaks = self.faults.breaks

    async def _open(self) -> None:
        if self._given_bench is None:
            self._bench = await self._stack.enter_async_context(open_bench(self._settings))
        else:
            self._bench = self._given_bench
        closed = self._callouts or Callouts(DRY)
        self._ground: Ground = await self._stack.enter_async_context(
            open_ground(self._settings, self._url, closed, name="circuit trial")
        )
        self._database, self._crm, self._governor = self._ground.database, self._ground.crm, self._ground.governor
        async with self._database.connection() as connection:
            self._release: Release = await record_release(connection, self._bench.digest, self._bench.manifest.handlers)
        self._outside = await self._open_outside() if self._callouts is None else None
        # What calls nobody outside also keeps its records here: the mirror is all that it needs of a CRM.
        home = None if self._housing is None else self._housing.home
        self._settler = Settler(self._database, uuid7(), Redactor.of_settings(self._settings.log).text, home=home)
        self._logs = LogWriter(self._database, self._release.id, redactor=Redactor.of_settings(self._settings.log))
        if self._keep_logs:
            self._stack.push_async_callback(self._flush_logs)

    async def _open_outside(self) -> BrokerParts:
        """Callouts and models that reach the network."""
        client = await self._stack.enter_async_context(open_client(self._ground.rules.guard))
        providers = await self._stack.enter_async_context(open_providers_client())
        models = make_models(self._settings, self._database, providers)
        self._stack.push_async_callback(models.settling.close, SETTLING)
        deliveries = await self._stack.enter_async_context(open_deliveries_client())
        secrets = open_secrets(self._settings, self._database)
        self._stack.push_async_callback(secrets.aclose)
        self._housing = make_housing(self._settings, self._database, deliveries, secrets)
        return self._ground.parts(client, models, self._housing)

    async def _flush_logs(self) -> None:
        self._logs.stop()
        await self._logs.run()

    @property
    def handlers(self) -> Sequence[HandlerSpec]:
        """Every handler of the app, by name."""
        return sorted(self._release.handlers.values(), key=lambda spec: spec.name)

    def find(self, name: str) -> HandlerSpec:
        """The handler of this name, or whose name ends so (``score_new_leads``). Raises TrialRefused."""
        return named(self.handlers, name)

    def route(self, handler: str, object: str | None, event: str | None) -> tuple[HandlerSpec, str, str]:
        """The trigger of this name, and which of its routes is meant. Raises TrialRefused."""
        spec = self.find(handler)
        if spec.endpoint is not None:
            raise TrialRefused(f"{spec.name} is an endpoint.", cure="Call it with a request in the place of records.")
        return spec, *route_of(spec, object, event)

    async def run(
        self,
        handler: str,
        records: Records,
        *,
        object: str | None = None,
        event: str | None = None,
        tenant: str = DEFAULT,
        old: Records | None = None,
        commit: bool = True,
        on_batch: Callable[[TrialBatch], None] = lambda batch: None,
    ) -> TrialResult:
        """Run one handler on ``records``, in batches of its size; ``on_batch`` hears of each when it has ended.

        Records are laid over what the CRM has of them, which is also their before-image unless ``old`` gives another.
        ``object`` and ``event`` may be left out where the handler has one of them. Without ``commit`` nothing is
        stored and no callout is made. Raises TrialRefused when it cannot be run like that, DatabaseUnavailable.
        """
        spec, object_, event_ = self.route(handler, object, event)
        given = await self._give(object_, event_, tenant, listed(records), None if old is None else listed(old))
        return await self._run(spec, object_, event_, tenant, given, commit, on_batch)

    async def deliver(
        self, object: str, event: str, records: Records, *, tenant: str = DEFAULT, old: Records | None = None
    ) -> list[TrialResult]:
        """Run every handler of this event on ``records`` and commit, as if they had arrived. By the handlers' names."""
        incoming = listed(records)
        given = await self._give(object, event, tenant, incoming, None if old is None else listed(old))
        found = []
        for spec in self.handlers:
            if (object, event) in spec.routes:
                fresh = await self._laid_over(object, tenant, given)
                found.append(await self._run(spec, object, event, tenant, fresh, True, lambda batch: None))
        return found

    async def seed(self, object: str, records: Records, *, tenant: str = DEFAULT) -> list[str]:
        """Put records into the CRM, in the place of what it has of them, without any trigger; their ids."""
        rows = [_identified(as_json(row, place)) for place, row in enumerate(listed(records))]
        ids = [str(row["id"]) for row in rows]
        data = [Jsonb({name: value for name, value in row.items() if name != "id"}) for row in rows]
        async with self._reaching() as connection:
            await connection.execute(SEED, [tenant, object, ids, data])
        return ids

    async def query(
        self,
        object: str,
        where: Mapping[str, Any] | None = None,
        *,
        order_by: str | None = None,
        limit: int = 1000,
        tenant: str = DEFAULT,
    ) -> list[Fields]:
        """Records of the CRM, as ``CircuitDB.query`` finds them."""
        by = orders(order_by) if order_by else ()
        return await rows_of(self._crm, tenant, Query(object, equal(where or {}), by, limit))

    async def _give(
        self, object_: str, event: str, tenant: str, records: Sequence[Any], old: Sequence[Any] | None
    ) -> list[Given]:
        """The events that these records would have been."""
        if not records:
            raise TrialRefused("There are no records.", cure="Give one or more, or have some generated.")
        if old is not None and len(old) != len(records):
            raise TrialRefused(f"{len(records)} records were given, and {len(old)} old ones.")
        incoming = [as_json(record, place) for place, record in enumerate(records)]
        if event != "afterInsert" and (nameless := [str(n + 1) for n, row in enumerate(incoming) if not row.get("id")]):
            raise TrialRefused(f"Record {nameless[0]} has no id, so nobody can say what changed ({event}).")
        incoming = [_identified(row) for row in incoming]
        if len({str(row["id"]) for row in incoming}) < len(incoming):
            raise TrialRefused("Two records have the same id.", cure="Run them one after the other.")
        async with self._reaching() as connection:
            ids = [row[0] for row in await (await connection.execute(NEXT_EVENTS, [len(incoming)])).fetchall()]
        given = [Given(row, row, None, seq) for row, seq in zip(incoming, ids, strict=True)]
        given = await self._laid_over(object_, tenant, given, before=event != "afterInsert")
        if old is None:
            return given
        earlier = [as_json(row, place) for place, row in enumerate(old)]
        return [replace(each, old={**row, "id": each.id}) for each, row in zip(given, earlier, strict=True)]

    async def _laid_over(
        self, object_: str, tenant: str, given: Sequence[Given], *, before: bool = False
    ) -> list[Given]:
        stored = await self._crm.get(tenant, object_, [each.id for each in given])
        return [
            replace(each, record={**(row or {}), **each.incoming}, old=row if before else each.old)
            for each, row in zip(given, stored, strict=True)
        ]

    async def _run(
        self,
        spec: HandlerSpec,
        object_: str,
        event: str,
        tenant: str,
        given: Sequence[Given],
        commit: bool,
        on_batch: Callable[[TrialBatch], None],
    ) -> TrialResult:
        spec = self._governor.bound(spec, tenant)
        batches: list[TrialBatch] = []
        retried: list[TrialBatch] = []
        for start in range(0, len(given), spec.batch_size):
            part = given[start : start + spec.batch_size]
            running, held = await self._judging.parted(Route(spec, object_, event, tenant, self._source), part)
            if held is not None:
                batches.append(await self._hold(held, commit))
                on_batch(batches[-1])
            if running is not None:
                found, again = await self._tries(running, commit)
                retried += again
                for each in found:
                    batches.append(each)
                    on_batch(each)
        return TrialResult(spec.name, object_, event, tenant, tuple(batches), retried=tuple(retried))

    async def _hold(self, held: Held, commit: bool) -> TrialBatch:
        """Records that the road would hold for a person: no handler sees them."""
        if not commit:
            return held.batch
        work = held.attempt.work
        for line in held.attempt.lines if self._keep_logs else ():
            told = {"level": line.level, "message": line.message, "context": line.fields, "record": line.record}
            self._logs.add(work.execution, JUDGMENT, work.tenant, told)
        return await self._committed(held.attempt, held.batch, [], [])

    async def _tries(self, first: Attempt, commit: bool) -> tuple[list[TrialBatch], list[TrialBatch]]:
        """The executions that a batch takes, and those of them that were tried again: none, unless something is to
        fail."""
        if not (commit and self.faults.armed):
            return [await self._try(first, commit)], []
        again = Again(
            policy=RetryPolicy(self._settings.worker.attempts, 0.0, 0.0).of(first.spec.retries),
            faults=self.faults,
            journal=KeptJournal(first.given),
            run=self._ran,
            commit=self._committed,
            as_now=self._laid_over,
            lose=self._bench.children.renew,
        )
        return await again.tries(first)

    async def _try(self, trying: Attempt, commit: bool) -> TrialBatch:
        outcome, broker = await self._ran(trying, None, commit)
        batch, writes, sends = trying.concluded(outcome, broker.put_off)
        return await self._committed(trying, batch, writes, sends) if commit else batch

    async def _ran(self, trying: Attempt, journal: KeptJournal | None, commit: bool) -> tuple[Outcome, TrialBroker]:
        trying.work = self._later(trying.work)
        broker = self._broker(trying, commit, journal)
        trying.home = self._home_of
        try:
            return await self._bench.children.run(trying.work, broker), broker
        finally:
            broker.close()

    async def call(
        self,
        endpoint: str,
        *,
        method: str | None = None,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        tenant: str = DEFAULT,
        commit: bool = True,
    ) -> TrialResult:
        """Call an endpoint by its path (``chat``, ``/api/chat``) or its handler's name, without HTTP and without a key.

        The result's ``answer`` is what the caller would get. Raises TrialRefused, DatabaseUnavailable.
        """
        calling = Calling.of(self, endpoint, method, body, query or {}, headers or {})
        calling = replace(calling, spec=self._governor.bound(calling.spec, tenant))
        trying = calling.attempt(tenant)
        trying.home = self._home_of
        trying.work = self._later(trying.work)
        broker = self._broker(trying, commit)
        reply = collected(broker, str(trying.work.execution))
        try:
            outcome = await self._bench.children.run(trying.work, broker, express=True)
        finally:
            broker.close()
        batch, writes, sends = calling.concluded(trying, outcome, reply, broker)
        if commit and (struck := self.faults.strikes(COMMIT, WORKER)):
            lost = (*batch.discarded, *batch.writes, *batch.sends)
            batch = replace(batch, status="failed", reason=KINDS[struck], writes=(), sends=(), discarded=lost)
        elif commit and not reply.lost:
            batch = await self._committed(trying, batch, writes, sends)
        answer = reply.answer(batch)
        return TrialResult(calling.spec.name, "", trying.work.event, tenant, (batch,), answer)

    def _later(self, work: Work) -> Work:
        return replace(work, started_at=work.started_at + self.ahead) if self.ahead else work

    def _home_of(self, tenant: str, object_: str) -> str:
        return LOCAL if self._housing is None else self._housing.of(tenant, object_)

    def _broker(self, trying: Attempt, commit: bool, journal: KeptJournal | None = None) -> TrialBroker:
        def log(line: dict[str, Any]) -> None:
            trying.log(line)
            if commit and self._keep_logs:
                self._logs.add(trying.work.execution, trying.spec.name, trying.work.tenant, line)

        outside = self._outside if commit else None
        parts = self._ground.closed_parts(commit=commit) if outside is None else outside
        if self.faults.armed:
            parts = replace(parts, crm=FaultyCRM(parts.crm, self.faults))
        broker = TrialBroker(
            trying.work,
            parts,
            held=trying.unit,
            journal=journal or TrialJournal(),
            log=log,
            remaining=trying.remaining,
            checkpoint=trying.checkpoint,
        )
        broker.closed = self._ground.closed if outside is None else None
        return broker

    async def _committed(
        self, trying: Attempt, batch: TrialBatch, writes: Sequence[Write], sends: Sequence[Send]
    ) -> TrialBatch:
        """Store the outcome with its effects. What the database refuses is the execution's failure, as on the road."""
        work = trying.work
        settlement = Settlement(
            execution=work.execution,
            tenant=work.tenant,
            release=self._release.id,
            handler=next(id_ for id_, spec in self._release.handlers.items() if spec.name == work.handler),
            object=work.object,
            event=work.event,
            records=len(batch.records),
            status=batch.status,
            started_at=datetime.fromtimestamp(time.time() - batch.duration, UTC),
            usage=batch.usage,
            reason=batch.reason or None,
            detail=batch.detail or None,
            arrived=trying.arrived(),
            writes=writes,
            sends=[(send, *trying.place(send.owner)) for send in sends],
            place=trying.place(None),
        )
        try:
            await self._settler.settle(settlement)
        except (psycopg.Error, VersionConflict) as error:
            if isinstance(error, VersionConflict):
                reason = error.reason
            elif is_transient(error):
                raise unavailable(error) from error
            else:
                reason = f"the database refused the outcome: {error.diag.message_primary or error}"
            lost = (*batch.discarded, *batch.writes, *batch.sends)
            errors = dict.fromkeys(batch.records, reason)
            return replace(batch, status="failed", reason=reason, errors=errors, writes=(), sends=(), discarded=lost)
        return replace(batch, committed=True)

    @contextlib.asynccontextmanager
    async def _reaching(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        try:
            async with self._database.connection() as connection:
                yield connection
        except psycopg.DataError as error:
            raise TrialRefused(f"The records cannot be stored: {error.diag.message_primary or error}.") from None
        except psycopg.OperationalError as error:
            raise unavailable(error) from error


def listed(records: Records) -> list[Any]:
    """One record or several, as several."""
    return [records] if isinstance(records, Mapping) else list(records)


def _identified(row: Fields) -> Fields:
    return {**row, "id": str(row["id"])} if row.get("id") else {**row, "id": str(uuid7())}
