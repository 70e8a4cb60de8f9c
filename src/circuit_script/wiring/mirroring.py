"""A worker's part in a mirror: what the old service took runs through the live release, too, and nothing of it is kept.

Queries and enrichment are answered for real. Callouts leave only to the hosts that ``[mirror.SOURCE] callouts`` names,
and models are asked only with ``models = true``: what the old service does outside would be done twice. What would be
written is compared with what the old service answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.errors import AppError, CalloutRefused, DatabaseUnavailable, ReplayRefused, RequestRefused
from circuit_script.events.batch import Item, Loader
from circuit_script.events.mirrors import Judged, Mirrored, claim_mirrored, settle_mirrored
from circuit_script.events.parity import Found, Ours, Written, compared, rules_of
from circuit_script.events.queued import Queued
from circuit_script.events.screening import Screen, held_by, reason_of
from circuit_script.execution.broker import enriching, model_calls
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.hosts import matches_any
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import Failed, HandlerSpec
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.releases import known_as, requirements_of
from circuit_script.releases.archive import unpacked
from circuit_script.wiring.environments import interpreter_in_use
from circuit_script.wiring.trial_batch import Attempt, Given, TrialBroker, TrialJournal, attempt
from circuit_script.wiring.trial_judgment import judged_of
from circuit_script.wiring.trial_result import TrialBatch

log = structlog.get_logger()

EVERY = 0.5  # seconds between two looks while nothing waits
AGAIN = 5.0  # seconds before what failed is tried again
KEEP = 60.0  # seconds after the last comparison that the processes of it are kept
TOGETHER = 200  # deliveries that are taken at once
AWAY = (psycopg.Error, PoolTimeout, OSError, DatabaseUnavailable)

_ENRICHING = -1
_asking: ContextVar[int | None] = ContextVar("asking", default=None)  # the place of the record that a request is for


@dataclass(frozen=True, slots=True)
class _Closed(Guard):
    """The rules of callouts for as long as the old service makes them: only those to ``egress`` leave. ``refused`` are
    others, by the record that they were for."""

    source: str = ""
    refused: list[tuple[int | None, str]] = field(default_factory=list, compare=False)

    def _check_names(self, shown: str, names: Sequence[str], egress: tuple[str, ...] | None) -> None:
        place = _asking.get()
        if place == _ENRICHING:
            return
        if not matches_any(self.egress or (), names):
            why = f"it calls {shown}, which the old service does still"
            self.refused.append((place, f"{why}: [mirror.{self.source}] callouts does not name it"))
            raise CalloutRefused(
                f"{why}.", cure=f'If it may be called twice, write callouts = ["{shown}"] under [mirror.{self.source}].'
            )
        Guard._check_names(self, shown, names, egress)


class _Broker(TrialBroker):
    """Refuses what the old service does still, and notes it in ``closing``."""

    closing: _Closed
    models = False

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        record = arguments.get("record")
        place = record if isinstance(record, int) else None
        if verb in model_calls.VERBS and not self.models:
            why = f"it asks a model: [mirror.{self.closing.source}] models = true would let it"
            self.closing.refused.append((place, why))
            raise RequestRefused(f"{verb}: {why}.")
        token = _asking.set(_ENRICHING if verb in enriching.VERBS else place)
        try:
            return await super().request(verb, arguments)
        finally:
            _asking.reset(token)


@dataclass(frozen=True, slots=True)
class MirrorParts:
    """What comparisons are made with: ``broker`` is the road's, ``loader`` reads what never stood on the queue."""

    settings: Settings
    database: Pool
    broker: BrokerParts
    loader: Loader
    governor: CircuitGovernor
    screen: Screen | None
    live: Callable[[], int]
    make_children: Callable[[Path, str], Children]


@dataclass(slots=True)
class _Host:
    """The live release in processes of its own: comparisons take no place from what is done for real."""

    release: int
    children: Children
    handlers: Mapping[int, HandlerSpec]
    files: contextlib.AsyncExitStack
    used: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Event:
    """One event for one handler, and where what comes of it belongs."""

    row: Queued
    spec: HandlerSpec
    source: str
    place: tuple[UUID, int]  # delivery and event


@dataclass(frozen=True, slots=True)
class _Made:
    """What one handler made of one event."""

    writes: tuple[Written, ...] = ()
    refused: str = ""
    closed: str = ""
    ms: float = 0.0
    lost: bool = False  # nobody knows: our own process ended it


class Mirroring:
    """Takes deliveries that an old service answered, and compares."""

    def __init__(self, worker: UUID, parts: MirrorParts, every: float = EVERY) -> None:
        self._worker = worker
        self._parts = parts
        self._every = every
        self._host: _Host | None = None

    async def run(self) -> None:
        """Until it is cancelled. What is not settled is taken again."""
        try:
            while True:
                try:
                    found = await self.tick()
                except (*AWAY, AppError, ReplayRefused) as error:
                    said = " ".join(str(error).split()) or "no answer"
                    log.warning("mirror.compare", error=said, next=f"trying again in {AGAIN:g} s")
                    await asyncio.sleep(AGAIN)
                else:
                    await asyncio.sleep(0 if found else self._every)
        finally:
            await self._close()

    async def tick(self) -> int:
        """Compare what waits; how many deliveries were taken. Raises psycopg.Error, AppError."""
        async with self._parts.database.connection() as connection:
            taken = await claim_mirrored(connection, self._worker, TOGETHER)
        if not taken:
            if self._host is not None and time.monotonic() - self._host.used > KEEP:
                await self._close()
            return 0
        host = await self._ready()
        judged = await self._judge(taken, host)
        async with self._parts.database.connection() as connection:
            await settle_mirrored(connection, self._worker, judged)
        host.used = time.monotonic()
        return len(taken)

    async def _ready(self) -> _Host:
        """What is live now, ready to run."""
        release = self._parts.live()
        if self._host is not None and (self._host.release != release or not self._host.children.zygote_pid):
            await self._close()
        if self._host is None:
            self._host = await self._open(release)
        return self._host

    async def _open(self, release: int) -> _Host:
        async with contextlib.AsyncExitStack() as stack:
            async with self._parts.database.connection() as connection:
                folder = await stack.enter_async_context(unpacked(connection, release))
                needs = await requirements_of(connection, release)
            python = await stack.enter_async_context(interpreter_in_use(needs))
            children = self._parts.make_children(folder, python)
            stack.push_async_callback(children.stop)
            manifest = await children.start()
            async with self._parts.database.connection() as connection:
                known = await known_as(connection, release, manifest.handlers)
            return _Host(release, children, known.handlers, stack.pop_all())

    async def _close(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.files.aclose()

    async def _judge(self, taken: Sequence[Mirrored], host: _Host) -> list[Judged]:
        made: dict[tuple[UUID, int], list[_Made]] = {}
        known = [each for each in taken if each.source in self._parts.settings.mirror]
        for batch in _batches(_routed(known, host.handlers)):
            for event, each in await self._run_alone(batch, host):
                made.setdefault(event.place, []).append(each)
        found = []
        for delivery in taken:
            parts = [made.get((delivery.delivery, event.id), []) for event in delivery.events]
            if any(each.lost for several in parts for each in several):
                continue  # it is taken again
            judged = self._compared(delivery, parts)
            ms = sum(each.ms for several in parts for each in several)
            found.append(
                Judged(delivery.delivery, judged.state, host.release, ms, judged.why, tuple(judged.differences))
            )
        return found

    def _compared(self, delivery: Mirrored, made: Sequence[Sequence[_Made]]) -> Found:
        settings = self._parts.settings.mirror.get(delivery.source)
        if settings is None:
            return Found("incomparable", f"circuit.toml on this host has no [mirror.{delivery.source}]")
        if not settings.compare:
            return Found("silent", f"[mirror.{delivery.source}] compare names nothing to compare")
        ours = [
            Ours(
                event.object,
                event.event,
                event.record,
                handlers=len(several),
                writes=tuple(write for each in several for write in each.writes),
                refused=next((each.refused for each in several if each.refused), ""),
                closed=next((each.closed for each in several if each.closed), ""),
            )
            for event, several in zip(delivery.events, made, strict=True)
        ]
        try:
            return compared(delivery.old_body, ours, rules_of(settings.compare, settings.within))
        except Exception as error:  # the old service may answer anything
            log.exception("mirror.compare", delivery=str(delivery.delivery))
            return Found("incomparable", f"the two cannot be compared: {type(error).__name__}")

    async def _run_alone(self, batch: Sequence[_Event], host: _Host) -> list[tuple[_Event, _Made]]:
        """What nobody has foreseen in one of them must not keep back the others."""
        try:
            return [found async for found in self._run(batch, host)]
        except (*AWAY, AppError, ReplayRefused):
            raise
        except Exception as error:
            if len(batch) > 1:
                return [found for event in batch for found in await self._run_alone([event], host)]
            log.exception("mirror.run", delivery=str(batch[0].row.delivery))
            why = f"it cannot be run here: {type(error).__name__}"
            return [(batch[0], _Made(refused=why, closed=why))]

    async def _run(self, batch: Sequence[_Event], host: _Host) -> AsyncIterator[tuple[_Event, _Made]]:
        """What becomes of each event of a batch of one kind."""
        spec, alive = batch[0].spec, list(batch)
        items, unreadable = await self._parts.loader.load([each.row for each in batch])
        if unreadable:
            for place, why in unreadable.items():
                yield batch[place], _Made(refused=why)
            alive = [each for place, each in enumerate(batch) if place not in unreadable]
            items, _ = await self._parts.loader.load([each.row for each in alive]) if alive else ([], {})
        if self._parts.screen is not None and items:
            items = await self._parts.screen.screened(items, echoes=spec.echoes)
        pairs = []
        for event, item in zip(alive, items, strict=True):
            if item.echo and not spec.echoes:
                yield event, _Made()
            elif held_by(item) is not None:
                yield event, _Made(refused=reason_of(item) or "it is held")
            else:
                pairs.append((event, item))
        for event, each in await self._tried(pairs, host) if pairs else []:
            yield event, each

    async def _tried(self, pairs: Sequence[tuple[_Event, Item]], host: _Host) -> list[tuple[_Event, _Made]]:
        """Run them together; apart where nobody could say otherwise what becomes of each."""
        source = pairs[0][0].source
        closing = self._closing(source)
        trying = self._attempt([event for event, _ in pairs], [item for _, item in pairs])
        broker = _Broker(
            trying.work,
            replace(
                self._parts.broker, callouts=replace(self._parts.broker.callouts, guard=closing, breakers=Breakers())
            ),
            held=trying.unit,
            journal=TrialJournal(),
            log=trying.log,
            remaining=trying.remaining,
            checkpoint=trying.checkpoint,
        )
        broker.closing, broker.models = closing, self._parts.settings.mirror[source].models
        try:
            outcome = await host.children.run(trying.work, broker)
        finally:
            broker.close()
        lost = isinstance(outcome, Failed) and outcome.blameless
        batch, _, _ = trying.concluded(outcome, broker.put_off)
        nobodys = any(place is None for place, _ in closing.refused) or any(
            each.record is None for each in (*batch.writes, *batch.discarded)
        )
        if len(pairs) > 1 and not lost and (batch.crashed or nobodys):
            groups = _apart(pairs, batch.suspect) if batch.crashed else [[pair] for pair in pairs]
            return [made for group in groups for made in await self._tried(group, host)]
        return [
            (event, _made(batch, event.row.record, place, closing, lost=lost, size=len(pairs)))
            for place, (event, _) in enumerate(pairs)
        ]

    def _attempt(self, events: Sequence[_Event], items: Sequence[Item]) -> Attempt:
        head = events[0].row
        spec = self._parts.governor.bound(events[0].spec, head.tenant)
        given = [Given(item.incoming, item.record, item.old, item.row.arrived) for item in items]
        trying = attempt(
            spec, given, object_=head.object, event=head.event, tenant=head.tenant, source=events[0].source
        )
        depth = max(item.depth for item in items) + 1
        trying.work = replace(trying.work, events=[item.meta for item in items], depth=depth)
        judged_of(trying, items)
        return trying

    def _closing(self, source: str) -> _Closed:
        rules = self._parts.broker.callouts.guard
        named: tuple[str, ...] = self._parts.settings.mirror[source].callouts
        allowed = [host for host in named if rules.egress is None or matches_any(rules.egress, (host,))]
        return _Closed(
            egress=tuple(allowed),
            private=rules.private,
            resolve=rules.resolve,
            resolver=rules.resolver,
            source=source,
        )


def _apart(pairs: Sequence[tuple[_Event, Item]], suspect: str | None) -> list[Sequence[tuple[_Event, Item]]]:
    """A batch that failed as a whole: the record that was worked on, and the others; else its halves."""
    alone = [pair for pair in pairs if pair[0].row.record == suspect]
    if alone:
        return [alone, [pair for pair in pairs if pair[0].row.record != suspect]]
    return [pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]]


def _made(batch: TrialBatch, record: str, place: int, closing: _Closed, *, lost: bool, size: int) -> _Made:
    writes = tuple(
        Written(each.object, each.id, each.fields, deleted=each.op == "delete")
        for each in batch.writes
        if each.record in ((record,) if size > 1 else (record, None))
    )
    closed = next((why for of, why in closing.refused if of in (place, None)), "")
    return _Made(writes, batch.errors.get(record, ""), closed, batch.duration * 1000 / size, lost)


def _routed(taken: Sequence[Mirrored], handlers: Mapping[int, HandlerSpec]) -> Iterator[_Event]:
    """Each event for each handler that takes it, the oldest first."""
    for delivery in taken:
        for event in delivery.events:
            for id_, spec in handlers.items():
                if (event.object, event.event) in spec.routes:
                    row = Queued(
                        id=event.id,
                        handler=id_,
                        lane=0,
                        attempts=0,
                        ordinal=event.ordinal,
                        order_hash=event.order_hash,
                        delivery=delivery.delivery,
                        not_before=None,
                        held_until=None,
                        tenant=delivery.tenant,
                        object=event.object,
                        event=event.event,
                        record=event.record,
                    )
                    yield _Event(row, spec, delivery.source, (delivery.delivery, event.id))


def _batches(events: Iterator[_Event]) -> Iterator[list[_Event]]:
    """As the road would hand them over: of one kind, and of one order key never two."""
    open_: dict[tuple[Any, ...], list[_Event]] = {}
    for event in events:
        row = event.row
        kind = row.tenant, row.handler, row.object, row.event, event.source
        batch = open_.setdefault(kind, [])
        if any(each.row.order_hash == row.order_hash for each in batch):
            yield open_.pop(kind)
            batch = open_.setdefault(kind, [])
        batch.append(event)
        if len(batch) >= event.spec.batch_size:
            yield open_.pop(kind)
    yield from open_.values()
