"""A dry replay: past events run through the app again, and nothing of it is written or leaves.

Each batch runs in a real child, under its limits, on the state that the records have now. Calls are answered from the
journal of the original executions; what was not recorded, or long ago, is refused. The database refuses every write by
itself, but where a pooler stands between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from circuit_script.config import Settings
from circuit_script.connectors.connector import Fields
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item, Loader
from circuit_script.events.replay.choosing import Choice, Chosen, Filter, Route
from circuit_script.events.screening import held_by, reason_of
from circuit_script.events.sources import open_sources
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import requirements_of
from circuit_script.releases.archive import unpacked
from circuit_script.tenants.accounts import TenantMap
from circuit_script.wiring.bench import Bench, open_bench
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.environments import interpreter_in_use
from circuit_script.wiring.trial_batch import Attempt, Given, TrialBroker, attempt
from circuit_script.wiring.trial_ground import Ground, Opened, open_ground
from circuit_script.wiring.trial_judgment import HELD, Judging, judged_of
from circuit_script.wiring.trial_result import Line, Sent, TrialBatch, Written

REFUSAL = (
    "a dry replay answers from what was recorded, and of this call nothing is; "
    "circuit.toml says for how long replies are kept: [ledger] reply_days"
)
CHUNK = 1000  # items that are read together, and of which batches are cut
IDS = "SELECT name, id FROM circuit.handlers WHERE name = ANY(%s)"
KNOWN = """
SELECT r.id, r.id = l.release FROM circuit.releases r LEFT JOIN circuit.live l ON true WHERE r.content_hash = %s
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A write that a handler would make. ``fields`` maps a name to its value before and after; what would stay as it is
    is not in it."""

    op: str
    object: str
    id: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Redone:
    """What would become of one record for one handler. ``record`` is None for what belongs to a batch as a whole, and
    leaves only if every record of it succeeds. ``status`` is succeeded, failed, cancelled, deferred, held (its texts
    are taken for an attack), echo or unreadable."""

    handler: str
    tenant: str
    object: str
    event: str
    record: str | None
    delivery: UUID | None
    status: str
    reason: str = ""
    changes: tuple[Change, ...] = ()
    sends: tuple[Sent, ...] = ()
    log: tuple[Line, ...] = ()


@dataclass(slots=True)
class Summary:
    """A dry replay in sum. ``writes`` are those that would change something; ``release`` is None for files that are no
    recorded release."""

    release: int | None
    live: bool
    records: dict[str, int] = field(default_factory=dict)  # by status
    writes: int = 0
    fields: int = 0
    sends: int = 0
    lines: int = 0
    refused: int = 0  # calls of which nothing was recorded

    def add(self, done: Redone) -> None:
        if done.record is not None:
            self.records[done.status] = self.records.get(done.status, 0) + 1
        self.writes += sum(1 for change in done.changes if change.fields or change.op == "delete")
        self.fields += sum(len(change.fields) for change in done.changes)
        self.sends += len(done.sends)
        self.lines += len(done.log)


class Recorded:
    """The journal of a batch: what its records' replies were then. What is said now is forgotten with it."""

    def __init__(self, rows: Sequence[Queued]) -> None:
        self._rows = rows

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        rows = self._rows if owner is None else (self._rows[owner],)
        return next((row.journal[key] for row in rows if key in row.journal), None)

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        """Nothing is answered that is not in it already."""


class DryReplay(Opened):
    """Runs past events through the app in ``settings.folder``, or through ``release`` as its files were recorded.
    Use as ``async with``. Raises AppError, ReplayRefused, DatabaseUnavailable."""

    def __init__(self, settings: Settings, url: str, *, release: int | None = None) -> None:
        super().__init__()
        self._settings = settings
        self.url = url if settings.pooler else _read_only(url)
        self._release = release
        self._judging = Judging(settings)

    async def _open(self) -> None:
        self._ground: Ground = await self._stack.enter_async_context(
            open_ground(self._settings, self.url, Callouts(REFUSAL), name="circuit dry replay")
        )
        self._database, self._crm = self._ground.database, self._ground.crm
        folder: Path | None = None
        python = ""
        if self._release is not None:
            async with self._database.connection() as connection:
                folder = await self._stack.enter_async_context(unpacked(connection, self._release))
                needs = await requirements_of(connection, self._release)
            python = await self._stack.enter_async_context(interpreter_in_use(needs))
        self._bench: Bench = await self._stack.enter_async_context(open_bench(self._settings, folder, python=python))
        self._parts = self._ground.closed_parts(commit=False)
        self._loader = Loader(self._database, open_sources(self._settings.sources), queued=False)
        await self._name()

    async def _name(self) -> None:
        """Give the app's handlers the ids that they have in the database; those that it has not met get others."""
        specs = [spec for spec in self._bench.manifest.handlers if spec.endpoint is None]
        async with self._database.connection() as connection:
            rows = await (await connection.execute(IDS, [[spec.name for spec in specs]])).fetchall()
            known = await (await connection.execute(KNOWN, [self._bench.digest])).fetchone()
        ids: dict[str, int] = dict(rows)
        self._specs: dict[int, HandlerSpec] = {ids.get(spec.name, -n): spec for n, spec in enumerate(specs, 1)}
        self.summary = Summary(*((known[0], bool(known[1])) if known is not None else (None, False)))

    @property
    def routes(self) -> list[Route]:
        """By which events find the app's handlers."""
        return [Route(*route, id_, spec.name) for id_, spec in self._specs.items() for route in spec.routes]

    def choice(self, wanted: Filter, tenants: TenantMap) -> Choice:
        """The events that ``wanted`` means, for this app's handlers. Raises ReplayRefused for a trigger it lacks."""
        return Choice(wanted, self.routes, tenants)

    async def run(self, choice: Choice) -> AsyncIterator[Redone]:
        """What would become of each record, as soon as it is known; ``summary`` counts along. Raises psycopg.Error."""
        async with self._database.connection() as reading:
            async for chunk in choice.chunks(reading, CHUNK):
                for batch in self._cut(chunk):
                    async for done in self._redo(batch):
                        self.summary.add(done)
                        self.summary.refused = len(self._ground.closed.refused)
                        yield done

    def _cut(self, chunk: Sequence[Chosen]) -> Iterator[list[Chosen]]:
        """Batches as the road would hand them over: of one kind, and of one order key never two."""
        open_: dict[tuple[str, int, str, str], list[Chosen]] = {}
        for item in sorted(chunk, key=lambda each: each.past):
            kind = item.tenant, item.handler, item.object, item.event
            batch = open_.setdefault(kind, [])
            if any(each.order_key == item.order_key for each in batch):
                yield open_.pop(kind)
                batch = open_.setdefault(kind, [])
            batch.append(item)
            if len(batch) >= self._specs[item.handler].batch_size:
                yield open_.pop(kind)
        yield from open_.values()

    async def _redo(self, batch: Sequence[Chosen]) -> AsyncIterator[Redone]:
        rows = [_queued(item) for item in batch]
        items, unreadable = await self._loader.load(rows)
        if unreadable:
            for place, why in unreadable.items():
                yield self._skipped(batch[place], "unreadable", why)
            rows = [row for place, row in enumerate(rows) if place not in unreadable]
            items, _ = await self._loader.load(rows) if rows else ([], {})
        for item, chosen in zip(items, (each for n, each in enumerate(batch) if n not in unreadable), strict=True):
            if item.echo and not self._specs[chosen.handler].echoes:
                yield self._skipped(chosen, "echo", "it is an echo of our own write")
        spec = self._specs[batch[0].handler]
        items = await self._judging.screened(items, echoes=spec.echoes)
        for item, chosen in zip(items, (each for n, each in enumerate(batch) if n not in unreadable), strict=True):
            if (reason := reason_of(item)) is not None:
                yield self._skipped(chosen, HELD, reason)
        alive = [item for item in items if (spec.echoes or not item.echo) and held_by(item) is None]
        if alive:
            for done in await self._tried(alive, spec):
                yield done

    def _skipped(self, item: Chosen, status: str, why: str) -> Redone:
        spec = self._specs[item.handler]
        return Redone(spec.name, item.tenant, item.object, item.event, item.record, item.delivery, status, why)

    async def _tried(self, items: Sequence[Item], spec: HandlerSpec) -> list[Redone]:
        rows = [item.row for item in items]
        head = rows[0]
        given = [Given(item.incoming, item.record, item.old, item.row.arrived) for item in items]
        spec = self._ground.governor.bound(spec, head.tenant)
        trying = attempt(spec, given, object_=head.object, event=head.event, tenant=head.tenant, source="replay")
        events = [{**item.meta, "replay": "dry"} for item in items]
        trying.work = replace(trying.work, events=events, depth=max(item.depth for item in items) + 1)
        judged_of(trying, items)
        broker = TrialBroker(
            trying.work,
            self._parts,
            held=trying.unit,
            journal=Recorded(rows),
            log=trying.log,
            remaining=trying.remaining,
            checkpoint=trying.checkpoint,
        )
        broker.closed = self._ground.closed
        try:
            outcome = await self._bench.children.run(trying.work, broker)
        finally:
            broker.close()
        batch, _, _ = trying.concluded(outcome, broker.put_off)
        return await self._told(trying, batch, rows)

    async def _told(self, trying: Attempt, batch: TrialBatch, rows: Sequence[Queued]) -> list[Redone]:
        """What the batch showed, by record."""
        changes = await self._changes(trying.work.tenant, batch.writes)
        found = []
        for row in rows if len(rows) == 1 else [*rows, None]:  # what belongs to a batch of one belongs to its record
            record = None if row is None else row.record
            owners = (record, None) if len(rows) == 1 else (record,)
            mine = tuple(each for each, write in zip(changes, batch.writes, strict=True) if write.record in owners)
            sends = tuple(each for each in batch.sends if each.record in owners)
            lines = tuple(each for each in batch.log if each.record in owners)
            if row is None and not (mine or sends or lines):
                continue
            status = batch.status if row is None else _status(batch, row.record)
            reason = "" if record is None else batch.errors.get(record, "")
            delivery = None if row is None else row.delivery
            head = trying.spec.name, trying.work.tenant, trying.work.object, trying.work.event
            found.append(Redone(*head, record, delivery, status, reason, mine, sends, lines))
        return found

    async def _changes(self, tenant: str, writes: Sequence[Written]) -> list[Change]:
        now: dict[tuple[str, str], Fields] = {}
        for object_ in {write.object for write in writes}:
            ids = list(dict.fromkeys(write.id for write in writes if write.object == object_))
            stored = await self._crm.get(tenant, object_, ids)
            now |= {(object_, key): row for key, row in zip(ids, stored, strict=True) if row is not None}
        changes = []
        for write in writes:
            before = now.get((write.object, write.id), {})
            after = {name: value for name, value in write.fields.items() if name != "id"}
            changed = {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}
            now[write.object, write.id] = {**before, **after}
            changes.append(Change(write.op, write.object, write.id, changed))
        return changes


def _status(batch: TrialBatch, record: str) -> str:
    if record not in batch.errors:
        return "succeeded"
    if record not in batch.decided:
        return "failed"
    return "cancelled" if batch.decided[record] is None else "deferred"


def _queued(item: Chosen) -> Queued:
    """As it would stand in the queue; under its first id, by which its replies are journaled."""
    return Queued(
        id=item.past,
        handler=item.handler,
        lane=0,
        attempts=0,
        ordinal=item.ordinal,
        order_hash=0,
        delivery=item.delivery,
        not_before=None,
        held_until=None,
        tenant=item.tenant,
        object=item.object,
        event=item.event,
        record=item.record,
        past=item.past,
    )


def _read_only(url: str) -> str:
    options = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{options} -c default_transaction_read_only=on".strip())
