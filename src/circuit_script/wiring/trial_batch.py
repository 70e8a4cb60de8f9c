"""One batch of a trial: what the handler is given, and what becomes of what it did."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Fields
from circuit_script.effects.homed import LOCAL, Home
from circuit_script.effects.settle import Arrived
from circuit_script.effects.unit import Send, UnitOfWork, Write
from circuit_script.errors import TrialRefused
from circuit_script.events.checkpoint import no_part_of_it
from circuit_script.events.conclude import lost_line
from circuit_script.events.intake import order_hash
from circuit_script.events.sources.source import order_key
from circuit_script.events.verdicts import Finished, decided_of, ended, ends_of, together
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.host.answer import Answered
from circuit_script.execution.outcome import ALL_OR_NONE, Breached, Failed, HandlerSpec, Hint, Outcome, Succeeded, Work
from circuit_script.execution.protocol import Head
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.trial_result import Left, Line, Sent, TrialBatch, Written

LANES = 64


@dataclass(frozen=True, slots=True)
class Given:
    """One event of a trial: what arrived for one record, and what the CRM had of it. ``seq`` is the event's id."""

    incoming: Fields
    record: Fields
    old: Fields | None
    seq: int

    @property
    def id(self) -> str:
        return str(self.record["id"])


class TrialJournal:
    """Replies of calls, for as long as the trial lasts: nothing is tried again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int | None, bytes], bytes] = {}

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return self._kept.get((owner, key))

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self._kept[owner, key] = reply


class TrialBroker(ExecutionBroker):
    """The real broker; with ``closed`` what libraries send past it is answered there, too, and connections are refused
    unless they are allowed."""

    closed: Callouts | None = None
    answered: Answered | None = None

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        if self.closed is None:
            return await super().request(verb, arguments)
        match verb:
            case "connect":
                self.closed.check_connection(arguments)
            case "request" if not self.closed.lets_out(str(arguments.get("url"))):
                leave = await super().request(verb, arguments)
                if isinstance(leave, dict) and "refused" not in leave:
                    leave["answer"] = await self.closed.answer(arguments)
                return leave
        return await super().request(verb, arguments)

    def on_head(self, head: Head) -> None:
        if self.answered is not None:
            self.answered.on_head(head)

    def on_chunk(self, body: bytes) -> None:
        if self.answered is not None:
            self.answered.on_chunk(body)


@dataclass(slots=True)
class Attempt:
    """One execution of a trial while it runs: its work, what it holds and what it logs."""

    spec: HandlerSpec
    work: Work
    given: Sequence[Given]
    unit: UnitOfWork
    lines: list[Line] = field(default_factory=list)
    settled: dict[int, str | None] = field(default_factory=dict)  # by checkpoints: the record's error, None for none
    decided: dict[int, float | None] = field(default_factory=dict)
    home: Home = lambda tenant, object_: LOCAL
    started: float = field(default_factory=time.monotonic)

    def remaining(self) -> float:
        """Seconds of wall time that are left."""
        return self.started + self.work.limits.wall_time - time.monotonic()

    def log(self, line: Mapping[str, Any]) -> None:
        """Take one line of the author's log."""
        fields, record = line.get("context"), line.get("record")
        self.lines.append(
            Line(
                str(line.get("level") or "info"),
                str(line.get("message") or ""),
                fields if isinstance(fields, dict) else {},
                None if record is None else str(record),
            )
        )

    async def checkpoint(
        self, upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None], hints: Mapping[int, Hint]
    ) -> None:
        """Fix what becomes of the records up to ``upto``. It is stored with the rest: a trial is not cut short.

        Raises RequestRefused where the batch is all or none."""
        if self.spec.batch == ALL_OR_NONE:
            raise no_part_of_it()
        for place in range(upto + 1):
            if place not in self.settled:
                self.settled[place] = errors.get(place)
                self.decided |= {place: decided[place]} if place in errors and place in decided else {}
        self.unit.settled = max(self.unit.settled, upto + 1)

    def arrived(self) -> list[Arrived]:
        """What the events brought, for the CRM."""
        deleted = self.work.event == "afterDelete"
        return [Arrived(self.work.object, each.id, each.incoming, each.seq, deleted) for each in self.given]

    def place(self, owner: int | None) -> tuple[int, int]:
        """Lane and order of an effect: those of its record, else of the first."""
        if not self.given:
            return 0, 0
        record = self.given[owner or 0]
        found = order_hash(self.work.tenant, order_key(self.work.object, record.id, record.record))
        return found % LANES, found

    def concluded(
        self, outcome: Outcome, put_off: Collection[float] = ()
    ) -> tuple[TrialBatch, list[Write], list[Send]]:
        """How the execution ended, and what of it may leave. ``put_off`` is as in ``ends_of``."""
        size = len(self.given)
        failed = {place: why for place, why in self.settled.items() if why is not None}
        settled_failed = bool(failed)
        decided = dict(self.decided)
        reason, detail, suspect = "", "", None
        match outcome:
            case Succeeded():
                failed |= {place: why for place, why in outcome.errors.items() if place not in self.settled}
                decided |= {place: after for place, after in outcome.decided.items() if place not in self.settled}
                reason = next(iter(failed.values()), "")
            case Failed() | Breached():
                reason, suspect = outcome.reason, outcome.suspect
                failed |= {place: reason for place in range(size) if place not in self.settled}
                detail = outcome.detail
        if failed and self.spec.batch == ALL_OR_NONE:
            said = replace(outcome, disturbed=False) if isinstance(outcome, Failed) else outcome
            verdict = together(said, size, [each.id for each in self.given], put_off)
            assert isinstance(verdict, Finished)  # only what was disturbed is split
            failed = {place: end.reason for place, end in verdict.failures.items()}
            decided = decided_of(verdict.failures)
        status, whole = ended(outcome, ends_of(failed, decided, put_off).values(), size)
        writes, sends = self.unit.surviving(failed, whole=whole)
        if settled_failed and isinstance(outcome, Succeeded) and self.unit.unattributed:
            self.log(lost_line(self.unit.orphans))
        batch = TrialBatch(
            execution=self.work.execution,
            records=tuple(each.id for each in self.given),
            status=status,
            duration=time.monotonic() - self.started,
            usage=outcome.usage.as_dict(),
            ceilings=self.work.limits.of_batch(size),
            reason=reason,
            detail=detail,
            errors={self.given[place].id: why for place, why in failed.items()},
            decided={self.given[place].id: after for place, after in decided.items()},
            suspect=None if suspect is None else self.given[suspect].id,
            writes=tuple(map(self.written, writes)),
            sends=tuple(map(self.sent, sends)),
            discarded=self.discarded(writes, sends),
            log=tuple(self.lines),
            crashed=not isinstance(outcome, Succeeded),
        )
        return batch, writes, sends

    def discarded(self, writes: Sequence[Write], sends: Sequence[Send]) -> tuple[Left, ...]:
        """What is held beside these, and does not leave."""
        left = {id(each) for each in (*writes, *sends)}
        return (
            *(self.written(each) for each in self.unit.writes if id(each) not in left),
            *(self.sent(each) for each in self.unit.sends if id(each) not in left),
        )

    def written(self, write: Write) -> Written:
        """The write, with its record named."""
        home = self.home(self.work.tenant, write.object)
        return Written(write.op, write.object, write.id, write.fields, self._owner(write.owner), home)

    def sent(self, send: Send) -> Sent:
        """The message, with its record named."""
        return Sent(send.connector, send.target, send.payload, self._owner(send.owner), str(send.id))

    def _owner(self, place: int | None) -> str | None:
        return self.given[place].id if place is not None and place < len(self.given) else None


def attempt(
    spec: HandlerSpec, given: Sequence[Given], *, object_: str, event: str, tenant: str, source: str
) -> Attempt:
    """A batch as the road would hand it over."""
    moment = time.time()
    work = Work(
        execution=uuid7(),
        handler=spec.name,
        tenant=tenant,
        object=object_,
        event=event,
        records=[each.record for each in given],
        old=[each.old for each in given],
        events=[_meta(each.seq, source, moment) for each in given],
        limits=spec.limits,
        started_at=moment,
        share_child=spec.share_child,
        egress=spec.egress,
        budget=spec.budget,
        at_ceiling=spec.at_ceiling,
        allow_irreversible=spec.allow_irreversible,
    )
    contacts = [contact if isinstance(contact := each.incoming.get("contactId"), str) else None for each in given]
    return Attempt(spec, work, given, UnitOfWork(object_, [each.id for each in given], contacts))


def _meta(seq: int, source: str, moment: float) -> Fields:
    delivery: UUID = uuid7()
    return {
        "id": seq,
        "delivery": str(delivery),
        "source": source,
        "vendor_id": None,
        "received_at": moment,
        "attempt": 1,
        "depth": 0,
    }


def as_json(record: Any, place: int) -> Fields:
    """A record as a vendor's JSON would bring it. Raises TrialRefused for what is none."""
    if not isinstance(record, Mapping):
        raise TrialRefused(f"Record {place + 1} is a {type(record).__name__}, not an object.")
    try:
        found: Fields = msgspec.json.decode(msgspec.json.encode(dict(record)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TrialRefused(f"Record {place + 1} is not JSON: {error}.") from None
    return found
