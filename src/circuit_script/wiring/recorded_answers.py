"""What a live execution has read, as the answers of another one: the CRM's, the journal's, those of unique jobs.

Who asks the same again is answered as the live one was, each time in turn, and from then on as the last time. What it
did not ask, nobody answers: what stands in the CRM by now may be the work of that very execution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from circuit_script.connectors.connector import CRM, Fields, Page, Plan, Query
from circuit_script.connectors.query import words
from circuit_script.errors import QueryRefused, RequestRefused
from circuit_script.events.recordings import PageRead, Recording, rows_of
from circuit_script.events.taping import question_of

NOT_READ = "was not read when this ran live"
CURE = "What a shadow reads beyond that cannot be compared: try it by circuit-script replay --dry-run."
LONGEST = 300  # characters of a question

T = TypeVar("T")


class _Turns(Generic[T]):
    """Answers to one question, in the order in which they were given."""

    __slots__ = ("_answers", "_next")

    def __init__(self) -> None:
        self._answers: list[T] = []
        self._next = 0

    def add(self, answer: T) -> None:
        self._answers.append(answer)

    def take(self) -> T:
        answer = self._answers[min(self._next, len(self._answers) - 1)]
        self._next += 1
        return answer


class RecordedCRM:
    """Reads of the CRM, as ``recording`` has them, below pending writes. ``explains`` tells how a query would be
    answered that was not recorded; ``asked`` gets a line for each question without an answer."""

    def __init__(self, recording: Recording, explains: CRM, asked: list[str] | None = None) -> None:
        self.asked: list[str] = [] if asked is None else asked
        self._tenant = recording.tenant
        self._explains = explains
        self._records: dict[tuple[str, str], _Turns[bytes]] = {}
        for read in recording.reads:
            self._records.setdefault((read.object, read.id), _Turns()).add(read.row)
        self._pages: dict[tuple[bytes, str | None], list[PageRead]] = {}
        for page in recording.pages:
            self._pages.setdefault((page.question, page.began), []).append(page)
        self._taken: dict[tuple[bytes, str | None], int] = {}
        self._seen = _seen(recording.pages)

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        """As the CRM's. It may have more rows than were asked for, of which whoever reads takes what is wanted."""
        key = question_of(query), after
        usable = [each for each in self._pages.get(key, ()) if self._is_of(tenant) and _answers(each, query)]
        if not usable:
            more = " from its next page on" if after is not None else ""
            raise self._refused(f"the query {query.object} where {words(query.where)[:LONGEST]}{more}", QueryRefused)
        turn = self._taken.get(key, 0)
        self._taken[key] = turn + 1
        found = usable[min(turn, len(usable) - 1)]
        return Page([row for row in rows_of(found.rows) if row is not None], found.after)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        rows: list[Fields | None] = []
        for id_ in ids:
            if self._is_of(tenant) and (turns := self._records.get((object_, id_))) is not None:
                rows += rows_of(turns.take())
            elif self._is_of(tenant) and (object_, id_) in self._seen:
                rows.append(self._seen[object_, id_])
            else:
                raise self._refused(f"the {object_} {id_[:LONGEST]}", RequestRefused)
        return rows

    def explain(self, query: Query) -> Plan:
        question = question_of(query)
        for (each, _), pages in self._pages.items():
            if each == question:
                return Plan(pages[0].connector, (), ordered=pages[0].ordered)
        return self._explains.explain(query)

    def _is_of(self, tenant: str) -> bool:
        return tenant == self._tenant

    def _refused(self, what: str, kind: type[RequestRefused]) -> RequestRefused:
        self.asked.append(what)
        return kind(f"{what} {NOT_READ}.", cure=CURE, page="recordings")


class RecordedJournal:
    """Replies of calls, as the live execution got them: those that it was given, and those that it found from an
    earlier attempt. What is said now is forgotten. ``calls`` counts what was answered, ``cost`` is what that cost when
    it was asked for, in dollars."""

    def __init__(self, recording: Recording) -> None:
        self.calls = 0
        self.cost = 0.0
        self._replies = {(each.owner, each.key): each.reply for each in recording.replies}
        self._any = {each.key: each.reply for each in reversed(recording.replies)}

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        otherwise = self._any.get(key) if owner is None else self._replies.get((None, key))
        reply = self._replies.get((owner, key), otherwise)
        self.calls += reply is not None
        return reply

    def paid(self, cost: float) -> None:
        """Hear what an answer of a model cost."""
        self.cost += cost

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        """Nothing is answered that is not in it already."""


class RecordedUnique:
    """Which job of a name and key waited or ran, as the live execution was told."""

    def __init__(self, recording: Recording, asked: list[str] | None = None) -> None:
        self.asked: list[str] = [] if asked is None else asked
        self._found: dict[tuple[str, str], _Turns[str | None]] = {}
        for each in recording.unique:
            self._found.setdefault((each.name, each.key), _Turns()).add(each.job)

    async def __call__(self, tenant: str, name: str, key: str) -> str | None:
        turns = self._found.get((name, key))
        if turns is None:
            what = f"whether a job {name} with the key {key[:LONGEST]!r} waits"
            self.asked.append(what)
            raise RequestRefused(f"{what} {NOT_READ}.", cure=CURE, page="recordings")
        return turns.take()


def _answers(page: PageRead, query: Query) -> bool:
    """Whether a page has all that this query asks: its fields, and rows as far as the page goes."""
    if page.fields and not (query.fields and set(query.fields) <= set(page.fields)):
        return False
    # One at its end may have been cut at its limit.
    return page.after is not None or query.limit <= page.limit or len(rows_of(page.rows)) < page.limit


def _seen(pages: Sequence[PageRead]) -> dict[tuple[str, str], Fields]:
    """Records of which a query has read every field, as they were when they were read last."""
    found: dict[tuple[str, str], Fields] = {}
    for page in pages:
        if not page.fields:
            found |= {(page.object, str(row["id"])): row for row in rows_of(page.rows) if row is not None}
    return found
