"""One recording through another release: every read is answered as it was live, and nothing leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

import httpx

from circuit_script.config import Settings
from circuit_script.connectors.connector import Operation
from circuit_script.connectors.local import LocalCRM
from circuit_script.db.pool import Pool
from circuit_script.effects.unit import Send, UnitOfWork, Write
from circuit_script.endpoints.protocol import Offer
from circuit_script.endpoints.routes import Routes
from circuit_script.events.recordings import Answer, Ended, Recording, Said, Wrote
from circuit_script.execution.broker.broker import BrokerParts
from circuit_script.execution.broker.callouts.breaker import Breakers
from circuit_script.execution.broker.callouts.fetch import CalloutParts, no_quota
from circuit_script.execution.host.answer import Answered
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import Failed, HandlerSpec, HttpRequest, Outcome, Work
from circuit_script.execution.protocol import Head
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.judgment.protocol import JudgmentProtocol
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.enrichment import make_enrichment
from circuit_script.wiring.models import make_closed_models
from circuit_script.wiring.recorded_answers import RecordedCRM, RecordedJournal, RecordedUnique
from circuit_script.wiring.trial_batch import Attempt, Given, TrialBroker
from circuit_script.wiring.trial_call import Calling, collected
from circuit_script.wiring.trial_result import TrialBatch

REFUSAL = "the live release did not ask this, so that nobody knows the answer; a shadow asks nobody"
TRIES = 3  # of an execution whose process ends for no fault of its own
LONGEST = 300  # characters of a path
LONGER = 65_536  # bytes by which an answer is kept that is longer than the live one
SHOWN = 20  # questions that are kept of one execution


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What the candidate did. ``asked`` is what it wanted to know and nobody has recorded; ``began`` is when; ``calls``
    are those that were answered as the live ones were."""

    ended: Ended
    asked: Sequence[str]
    began: float
    calls: int = 0


@dataclass(frozen=True, slots=True)
class ShadowParts:
    """What candidates of one worker run with: the road's, as far as it reaches nobody."""

    settings: Settings
    database: Pool
    governor: CircuitGovernor
    rules: CalloutParts
    knows: Callable[[str, str], bool]
    declared: Callable[[str, str], Operation | None]
    home: Callable[[str, str], str]
    judgment: JudgmentProtocol | None

    def broker_parts(self, recording: Recording, client: httpx.AsyncClient, asked: list[str]) -> BrokerParts:
        # What was recorded is the last word: to ask again would only ask oneself.
        rules = replace(self.rules, attempts=1, breakers=Breakers(), reaches=False, spend=no_quota)
        return BrokerParts(
            crm=RecordedCRM(recording, LocalCRM(self.database), asked),
            client=client,
            callouts=rules,
            models=make_closed_models(self.settings, self.database, client, commit=False),
            repeats=self.governor.repeats,
            enrichment=make_enrichment(self.settings, None),
            knows=self.knows,
            declared=self.declared,
            home=self.home,
            unique_jobs=RecordedUnique(recording, asked),
            judgment=self.judgment,
        )


@dataclass(slots=True)
class _Heard:
    """What the handler itself answers, as it was recorded of the live one; the answer goes on to ``reply``. Of one that
    goes on for ever ``most`` bytes are kept: it is another one by then."""

    reply: Answered
    most: int
    head: Head | None = None
    body: bytearray = field(default_factory=bytearray)

    @property
    def answer(self) -> Answer | None:
        return None if self.head is None else Answer(self.head.status, tuple(self.head.headers), bytes(self.body))

    def on_head(self, head: Head) -> None:
        self.head = self.head or head
        self.reply.on_head(head)

    def on_chunk(self, body: bytes) -> None:
        kept = body[: self.most - len(self.body)]
        if kept:
            self.body += kept
            self.reply.on_chunk(kept)


@dataclass(slots=True)
class _Run:
    """One attempt at a recording."""

    recording: Recording
    spec: HandlerSpec
    parts: ShadowParts
    children: Children
    asked: list[str] = field(default_factory=list)
    journal: RecordedJournal = field(init=False)
    closed: Callouts = field(default_factory=lambda: Callouts(REFUSAL))

    def __post_init__(self) -> None:
        self.journal = RecordedJournal(self.recording)

    async def batch(self, client: httpx.AsyncClient) -> tuple[Shadowed, Outcome]:
        trying = self._attempt()
        broker = self._broker(trying, client)
        began = time.time()
        try:
            outcome = await self.children.run(trying.work, broker)
        finally:
            broker.close()
        batch, writes, sends = trying.concluded(outcome, broker.put_off)
        return self._shadowed(batch, writes, sends, None, began), outcome

    async def call(self, client: httpx.AsyncClient) -> tuple[Shadowed, Outcome]:
        assert self.recording.request is not None
        calling = Calling(self.spec, self.recording.request)
        trying = calling.attempt(self.recording.tenant)
        trying.work = replace(trying.work, execution=self.recording.execution, started_at=self.recording.started_at)
        broker = self._broker(trying, client)
        reply = collected(broker, str(trying.work.execution))
        live = self.recording.ended.answer
        heard = broker.answered = _Heard(reply.reply, LONGER + (0 if live is None else len(live.body)))
        began = time.time()
        try:
            outcome = await self.children.run(trying.work, broker, express=True)
        finally:
            broker.close()
        batch, writes, sends = calling.concluded(trying, outcome, reply, broker)
        return self._shadowed(batch, writes, sends, heard.answer, began), outcome

    def _attempt(self) -> Attempt:
        """The batch as the live release had it, for the candidate's handler."""
        recording, spec = self.recording, self.spec
        given = [
            Given(record, record, old, int(meta.get("id") or 0))
            for record, old, meta in zip(recording.records, recording.old, recording.events, strict=True)
        ]
        unit = UnitOfWork(recording.object, [each.id for each in given], recording.contacts)
        return Attempt(spec, work_of(recording, spec), given, unit)

    def _broker(self, trying: Attempt, client: httpx.AsyncClient) -> TrialBroker:
        broker = TrialBroker(
            trying.work,
            self.parts.broker_parts(self.recording, client, self.asked),
            held=trying.unit,
            journal=self.journal,
            log=trying.log,
            remaining=trying.remaining,
            checkpoint=trying.checkpoint if trying.given else None,
        )
        broker.closed = self.closed
        return broker

    def _shadowed(
        self, batch: TrialBatch, writes: Sequence[Write], sends: Sequence[Send], answer: Answer | None, began: float
    ) -> Shadowed:
        places = {key: place for place, key in enumerate(batch.records)}
        ended = Ended(
            status=batch.status,
            reason=batch.reason,
            errors={places[key]: why for key, why in batch.errors.items()},
            decided={places[key]: after for key, after in batch.decided.items()},
            writes=tuple(Wrote(w.op, w.object, w.id, w.fields, w.owner, w.fresh) for w in writes),
            sends=tuple(Said(str(s.id), s.connector, s.operation, s.target, s.payload, s.owner) for s in sends),
            answer=answer,
            usage=batch.usage,
            ms=float(batch.usage.get("wall_time", 0.0)) * 1000,
            cost=float(batch.usage.get("llm_cost", 0.0)) + self.journal.cost,
        )
        asked = list(dict.fromkeys((*self.asked, *self.closed.refused)))[:SHOWN]
        return Shadowed(ended, asked, began, self.journal.calls + len(self.closed.refused))


def work_of(recording: Recording, spec: HandlerSpec) -> Work:
    """The same call as the live release had, under the candidate's limits."""
    return Work(
        execution=recording.execution,
        handler=spec.name,
        tenant=recording.tenant,
        object=recording.object,
        event=recording.event,
        records=recording.records,
        old=recording.old,
        events=recording.events,
        limits=spec.limits,
        started_at=recording.started_at,
        share_child=spec.share_child,
        concurrency=min(recording.concurrency, spec.concurrency),
        egress=spec.egress,
        depth=recording.depth,
        verdicts=recording.verdicts,
        budget=spec.budget,
        at_ceiling=spec.at_ceiling,
        allow_irreversible=spec.allow_irreversible,
    )


async def run_recording(
    recording: Recording, handlers: Mapping[str, HandlerSpec], parts: ShadowParts, children: Children
) -> Shadowed:
    """What the candidate's handler of that name does with it. One whose process ends for no fault of its own runs
    again. Raises KeyError where there is no such handler."""
    spec = parts.governor.bound(handlers[recording.handler], recording.tenant)
    for _ in range(TRIES):
        run = _Run(recording, spec, parts, children)
        async with httpx.AsyncClient(transport=run.closed) as client:
            shadowed, outcome = await (run.batch(client) if recording.request is None else run.call(client))
        if not (isinstance(outcome, Failed) and (outcome.blameless or outcome.disturbed)):
            break
    return shadowed


def not_taken(recording: Recording, handlers: Mapping[str, HandlerSpec]) -> str:
    """Why the candidate would not have run at all; empty where it would have."""
    spec = handlers.get(recording.handler)
    if spec is None:
        return f"the candidate has no handler {recording.handler}"
    if recording.request is not None:
        return _not_reached(recording.handler, recording.request, spec, handlers)
    if spec.endpoint is not None and not spec.routes:
        return f"{recording.handler} is an endpoint in the candidate"
    if spec.routes and (recording.object, recording.event) not in spec.routes:
        return f"{recording.handler} does not take {recording.event} of {recording.object} in the candidate"
    return ""


def _not_reached(name: str, request: HttpRequest, spec: HandlerSpec, handlers: Mapping[str, HandlerSpec]) -> str:
    """Why such a request would not lead to this endpoint of the candidate. One that is called by its name has a path
    that leads to none, here and there."""
    if spec.endpoint is None:
        return f"{name} is no endpoint in the candidate"
    routes = Routes([Offer(each.name, each.endpoint) for each in handlers.values() if each.endpoint is not None])
    shown = f"{request.method} {request.path}"[:LONGEST]
    found = routes.find(request.method, unquote(request.path))
    if found is not None and found.offer is not None and found.offer.name != name:
        return f"{shown} leads to {found.offer.name} in the candidate"
    if not {request.method, "GET" if request.method == "HEAD" else ""} & {*spec.endpoint.methods}:
        return f"{name} does not take {request.method} in the candidate"
    return ""
