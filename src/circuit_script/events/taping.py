"""What one live execution reads, as it reads it: pages and records of the CRM, replies of calls, jobs with a key.

Nothing here may change what is answered, nor hold it up: what cannot be kept ends the tape, and the execution goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from circuit_script.connectors.connector import CRM, Fields, Page, Plan, Query, Stored
from circuit_script.connectors.query import All, AnyOf, Condition, Not, Where
from circuit_script.effects.settle import Settlement
from circuit_script.effects.unit import Send, Write
from circuit_script.events.recordings import (
    Answer,
    Ended,
    PageRead,
    Recording,
    RecordRead,
    Replied,
    Said,
    UniqueAsked,
    Wrote,
)
from circuit_script.execution.broker.broker import UniqueJobs
from circuit_script.execution.broker.outside import Journal
from circuit_script.execution.outcome import HttpRequest, Work

NOT_KEPT = "[not kept]"
# Headers by which somebody proves who they are: of a recording nobody may take them.
PROVING = ("auth", "cookie", "token", "secret", "key", "signature", "password", "credential", "session")

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


class Tape:
    """What one execution reads. ``whole`` is False once it has read more than ``largest`` bytes, or something that
    cannot be kept: then nothing more is noted, and nothing of it is stored."""

    __slots__ = ("_body", "_bytes", "_contacts", "_decided", "_errors", "_head", "_largest", "_sends", "_work",
                 "_writes", "pages", "reads", "release", "replies", "unique", "whole")  # fmt: skip

    def __init__(self, release: int, largest: int) -> None:
        self.release = release
        self._largest = largest
        self._begin()

    def _begin(self) -> None:
        self.whole = True
        self._bytes = 0
        self._work: Work | None = None
        self._contacts: Sequence[str | None] = ()
        self.pages: list[PageRead] = []
        self.reads: list[RecordRead] = []
        self.replies: list[Replied] = []
        self.unique: list[UniqueAsked] = []
        self._errors: dict[int, str] = {}
        self._decided: dict[int, float | None] = {}
        self._writes: list[Write] = []
        self._sends: list[Send] = []
        self._head: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._body: list[bytes] = []

    def start(self, work: Work, contacts: Sequence[str | None] = ()) -> None:
        """The execution begins, perhaps anew: what was noted of it until now does not count."""
        self._begin()
        self._work, self._contacts = work, contacts

    def crm(self, crm: CRM) -> CRM:
        """The same, with what it answers noted."""
        return _TapedCRM(crm, self)

    def journal(self, journal: Journal) -> Journal:
        """The same, with what it finds and keeps noted."""
        return TapedJournal(journal, self)

    def unique_jobs(self, ask: UniqueJobs | None) -> UniqueJobs | None:
        """The same, with what it finds noted."""
        return None if ask is None else _TapedJobs(ask, self)

    def on_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """An endpoint begins to answer, as its handler said it."""
        if self._head is None:
            self._head = status, _unproven((str(name), str(value)) for name, value in headers)

    def on_chunk(self, body: bytes) -> None:
        if self._fits(len(body)):
            self._body.append(body)

    def page(self, crm: CRM, query: Query, began: str | None, page: Page) -> None:
        rows = self._rows(page.rows)
        if rows is None:
            return
        plan = crm.explain(query)
        self.pages.append(
            PageRead(
                question=question_of(query),
                connector=plan.connector,
                object=query.object,
                ordered=plan.ordered,
                fields=query.fields,
                limit=query.limit,
                began=began,
                rows=rows,
                after=page.after,
            )
        )

    def records(self, object_: str, ids: Sequence[str], rows: Sequence[Fields | None]) -> None:
        for id_, row in zip(ids, rows, strict=True):
            packed = self._rows([row])
            if packed is None:
                return
            self.reads.append(RecordRead(object_, id_, packed))

    def reply(self, owner: int | None, key: bytes, reply: bytes) -> None:
        if self._fits(len(key) + len(reply)):
            self.replies.append(Replied(owner, key, reply))

    def job(self, name: str, key: str, job: str | None) -> None:
        if self._fits(len(name) + len(key)):
            self.unique.append(UniqueAsked(name, key, job))

    def left(self, settlement: Settlement, first: int, size: int, decided: Mapping[int, float | None]) -> None:
        """A settlement of the execution is committed: of ``size`` records from the place ``first`` on."""
        for place, row in enumerate(settlement.rows[:size], start=first):
            if row.status != "succeeded":
                self._errors[place] = row.reason or row.status
                if place in decided:
                    self._decided[place] = decided[place]
        sends = [send for send, _, _ in settlement.sends]  # whose owners count from the first of these records
        self.took(
            settlement.writes,
            [each if each.owner is None else replace(each, owner=each.owner + first) for each in sends],
        )

    def took(self, writes: Sequence[Write], sends: Sequence[Send]) -> None:
        """These have left."""
        self._writes += writes
        self._sends += sends

    def ended(self, status: str, reason: str | None, usage: Mapping[str, float]) -> Ended:
        """How the execution ended, with all that has left of it."""
        head = self._head
        return Ended(
            status=status,
            reason=reason or "",
            errors=self._errors,
            decided=self._decided,
            writes=tuple(Wrote(e.op, e.object, e.id, e.fields, e.owner, e.fresh) for e in self._writes),
            sends=tuple(Said(str(e.id), e.connector, e.operation, e.target, e.payload, e.owner) for e in self._sends),
            answer=None if head is None else Answer(*head, b"".join(self._body)),
            usage=usage,
            ms=usage.get("wall_time", 0.0) * 1000,
            cost=usage.get("llm_cost", 0.0),
        )

    def recording(self, ended: Ended) -> Recording:
        """All of it, to be packed."""
        work = self._work
        assert work is not None  # it was started
        return Recording(
            execution=work.execution,
            release=self.release,
            tenant=work.tenant,
            handler=work.handler,
            object=work.object,
            event=work.event,
            ended=ended,
            records=work.records,
            old=work.old,
            events=work.events,
            contacts=self._contacts,
            started_at=work.started_at,
            depth=work.depth,
            concurrency=work.concurrency,
            verdicts=work.verdicts,
            request=None if work.request is None else without_proof(work.request),
            pages=self.pages,
            reads=self.reads,
            replies=self.replies,
            unique=self.unique,
        )

    def _rows(self, rows: Sequence[Fields | None]) -> bytes | None:
        if not self.whole:
            return None
        try:
            packed = _encode([None if row is None else (row.version if isinstance(row, Stored) else None, dict(row))
                              for row in rows])  # fmt: skip
        except (TypeError, ValueError, OverflowError, RecursionError):  # which no release could be asked with
            self.whole = False
            return None
        return packed if self._fits(len(packed)) else None

    def _fits(self, size: int) -> bool:
        self._bytes += size
        self.whole = self.whole and self._bytes <= self._largest
        return self.whole


class _TapedCRM:
    def __init__(self, crm: CRM, tape: Tape) -> None:
        self._crm = crm
        self._tape = tape

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        page = await self._crm.page(tenant, query, after, size)
        self._tape.page(self._crm, query, after, page)
        return page

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        rows = await self._crm.get(tenant, object_, ids)
        self._tape.records(object_, ids, rows)
        return rows

    def explain(self, query: Query) -> Plan:
        return self._crm.explain(query)


class TapedJournal:
    """A journal of which is noted what it finds and keeps, and what is too bad to be kept."""

    def __init__(self, journal: Journal, tape: Tape) -> None:
        self._journal = journal
        self._tape = tape

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        reply = self._journal.find(owner, key)
        if reply is not None:
            self._tape.reply(owner, key, reply)
        return reply

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self._tape.reply(owner, key, reply)
        await self._journal.keep(owner, key, reply)

    def heard(self, owner: int | None, key: bytes, reply: Callable[[], bytes]) -> None:
        """A reply that is not kept, as another attempt may get a better one."""
        if self._tape.whole:
            self._tape.reply(owner, key, reply())


class _TapedJobs:
    def __init__(self, ask: UniqueJobs, tape: Tape) -> None:
        self._ask = ask
        self._tape = tape

    async def __call__(self, tenant: str, name: str, key: str) -> str | None:
        job = await self._ask(tenant, name, key)
        self._tape.job(name, key, job)
        return job


def question_of(query: Query) -> bytes:
    """What is asked, however it is said: the same for the same object, conditions and order."""
    text = repr((query.object, _canonical(query.where), query.order_by))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def _canonical(where: Where) -> Any:
    match where:
        case All(parts) | AnyOf(parts):
            return type(where).__name__, sorted(map(repr, map(_canonical, parts)))
        case Not(part):
            return "Not", _canonical(part)
        case Condition(field, op, value):
            return field, op, sorted(map(repr, value)) if isinstance(value, tuple) else value


def without_proof(request: HttpRequest) -> HttpRequest:
    """The request without what proves who asks."""
    return replace(request, headers=_unproven(request.headers))


def _unproven(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, NOT_KEPT if any(word in name.lower() for word in PROVING) else value) for name, value in headers
    )
