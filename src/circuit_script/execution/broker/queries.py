"""One execution's reads of the CRM, on the trusted side: counted, bounded, with its pending writes laid over them.

A page is asked for by a number: what a vendor calls the place where the next one begins never reaches a child.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import CRM, Refused
from circuit_script.connectors.query import (
    DEEPEST,
    EVERYTHING,
    MOST_ROWS,
    AnyOf,
    Condition,
    Fields,
    Not,
    Query,
    Where,
    equal,
    every,
    in_order,
    matches,
    orders,
)
from circuit_script.connectors.reading import PAGE, Reading, only, rows_of
from circuit_script.errors import NotConnected, QueryRefused, VendorUnavailable
from circuit_script.execution.broker.versions import shown
from circuit_script.execution.outcome import Work
from circuit_script.governor import Meter

USUAL = 1_000  # rows where no limit is said
MOST_OPEN = 20  # queries of one execution that are read page by page at once
LOST = "this query is not being read any more."


class Overlay(Protocol):
    """Pending writes, laid over what is stored."""

    def pending(self, object_: str) -> list[str]: ...

    def unread(self, object_: str, rows: Sequence[Fields]) -> list[str]: ...

    def overlay_rows(self, object_: str, ids: Sequence[str], rows: Sequence[Fields | None]) -> list[Fields | None]: ...

    def overlay_query(self, query: Query, rows: Sequence[Fields]) -> list[Fields]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as a child asks it. Its limit counts the ``skipped`` rows at its beginning; ``versions``: rows are told
    with theirs; ``bounded``: by its author, and not only by what one query may have."""

    query: Query
    skipped: int = 0
    versions: bool = False
    bounded: bool = True


@dataclass(slots=True)
class _Open:
    """A query that is read page by page. ``pending`` are the ids that had pending writes when it began and were not
    met so far."""

    asked: Asked
    reading: Reading
    pending: set[str] = field(default_factory=set)
    given: int = 0  # rows, and those that were skipped
    cut: bool = False  # there are more than one query may have


class Reads:
    """Queries of one execution. ``known`` are the records that it has seen, which it may write to; ``away``:
    the CRM could not be reached."""

    __slots__ = ("_crm", "_held", "_known", "_meter", "_open", "_opened", "_work", "away")

    def __init__(
        self,
        work: Work,
        *,
        crm: CRM,
        held: Overlay,
        meter: Meter,
        known: set[tuple[str, str]],
    ) -> None:
        self._work = work
        self._crm = crm
        self._held = held
        self._meter = meter
        self._known = known
        self.away = False
        self._open: dict[int, _Open] = {}
        self._opened = 0

    async def get(self, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        """Records as they are stored. Raises RequestRefused."""
        found: list[Fields | None] = await self._asking(self._crm.get(self._work.tenant, object_, ids))
        return found

    async def query(self, said: dict[str, Any]) -> list[Fields]:
        """All rows at once. Raises RequestRefused, LimitExceeded."""
        self._meter.spend("db_queries")
        asked = read(said, USUAL)
        query = asked.query
        # So many more rows as pending writes may make drop out.
        room = min(MOST_ROWS, query.limit + len(self._held.pending(query.object)))
        rows = await self._asking(rows_of(self._crm, self._work.tenant, _whole(query, room)))
        if unread := self._held.unread(query.object, rows):
            rows += [row for row in await self.get(query.object, unread) if row is not None]
        found = self._held.overlay_query(query, rows)[asked.skipped :]
        self._meter.spend("db_rows", len(found))
        return self._told(asked, found, rows)

    async def page(self, said: dict[str, Any]) -> dict[str, Any]:
        """The next rows of a query: {"rows", "after"}, which is None at the end. Raises RequestRefused."""
        self._meter.spend("db_queries")
        number = said.get("after")
        if number is None:
            opened = self._begin(read(said, MOST_ROWS))
            number = self._opened = self._opened + 1
            self._open[number] = opened
            if len(self._open) > MOST_OPEN:
                del self._open[min(self._open)]
        else:
            opened = self._reopened(int(number))
        rows, stored = await self._next(opened)
        self._meter.spend("db_rows", len(rows))
        over = opened.reading.over and (opened.asked.bounded or not opened.cut)
        if over:
            self._open.pop(int(number), None)
        return {"rows": self._told(opened.asked, rows, stored), "after": None if over else number}

    async def count(self, said: dict[str, Any]) -> dict[str, int]:
        """How many rows there are, up to the limit: {"count"}. Raises RequestRefused, LimitExceeded."""
        asked = read(said, MOST_ROWS)
        opened = self._begin(replace(asked, query=replace(asked.query, fields=("id",))))
        found = 0
        while True:
            self._meter.spend("db_queries")
            rows, _ = await self._next(opened)
            self._meter.spend("db_rows", len(rows))
            found += len(rows)
            if opened.reading.over:
                return {"count": found}

    async def explain(self, said: dict[str, Any]) -> dict[str, Any]:
        """How it would be answered: {"connector", "requests", "here"}. Raises QueryRefused."""
        plan = self._crm.explain(read(said, USUAL).query)
        return {"connector": plan.connector, "requests": list(plan.requests), "here": list(plan.here)}

    def _begin(self, asked: Asked) -> _Open:
        query = asked.query
        pending = self._held.pending(query.object)
        room = min(MOST_ROWS, query.limit + len(pending))
        reading = Reading(self._crm, self._work.tenant, _whole(query, room))
        return _Open(asked, reading, set(pending))

    def _reopened(self, number: int) -> _Open:
        opened = self._open.get(number)
        if opened is None:
            raise QueryRefused(LOST, cure=f"At most {MOST_OPEN} are, the latest ones.")
        if opened.reading.over:
            del self._open[number]
            raise QueryRefused(f"more than {MOST_ROWS:,} records match.", cure="Narrow it, or say a limit.")
        return opened

    async def _next(self, opened: _Open) -> tuple[list[Fields], list[Fields]]:
        """The next rows, and what is stored of them. What matches only by what was pending at the beginning comes at
        the end; what is written meanwhile shows in the rows that come, but adds none."""
        query = opened.asked.query
        found: list[Fields] = []
        stored: list[Fields] = []
        while not found and not opened.reading.over:
            rows = await self._asking(opened.reading.next(PAGE))
            ids = [str(row["id"]) for row in rows]
            opened.pending.difference_update(ids)
            stored += rows
            found += self._laid_over(query, ids, rows)
        if opened.reading.over and opened.pending:
            ids = sorted(opened.pending)
            opened.pending.clear()
            rest = await self.get(query.object, ids)
            stored += [row for row in rest if row is not None]
            found += in_order(self._laid_over(query, ids, rest), query.order_by)
        skip = max(0, opened.asked.skipped - opened.given)
        room = query.limit - opened.given
        opened.given += min(len(found), room)
        opened.cut = opened.reading.cut or len(found) > room
        if len(found) >= room:
            opened.reading.over = True
        return found[skip:room], stored

    def _laid_over(self, query: Query, ids: Sequence[str], rows: Sequence[Fields | None]) -> list[Fields]:
        seen = self._held.overlay_rows(query.object, ids, rows)
        return [row for row in seen if row is not None and matches(row, query.where)]

    def _told(self, asked: Asked, rows: Sequence[Fields], stored: Sequence[Fields | None]) -> list[Any]:
        self._known.update((asked.query.object, str(row["id"])) for row in rows)
        rows = [only(row, asked.query.fields) for row in rows]
        return shown(rows, stored) if asked.versions else rows

    async def _asking(self, answer: Awaitable[Any]) -> Any:
        """What the CRM answers. Where its vendor cannot be reached now, the execution runs again later."""
        try:
            return await answer
        except NotConnected:  # nor will it be by itself
            raise
        except VendorUnavailable:
            self.away = True
            raise
        except Failed as failed:
            match failed.delivery:
                case Refused(reason=reason):
                    raise QueryRefused(reason) from None
                case delivery:
                    self.away = True
                    raise VendorUnavailable(delivery.reason) from None


def _whole(query: Query, limit: int) -> Query:
    """As the CRM is asked: also for the fields that rows are held against, and so many of them."""
    return replace(query, limit=limit, fields=tuple(sorted(query.read)))


def read(said: Mapping[str, Any], usual: int) -> Asked:
    """A query as a child says it: in SOQL, or by its parts. Raises QueryRefused; TypeError, ValueError, KeyError for
    what no child of ours says."""
    versions, first = bool(said.get("versions")), bool(said.get("first"))
    if (text := said.get("soql")) is not None:
        from circuit_script.connectors.soql.parse import parse  # with its grammar, where it is used

        parsed = parse(str(text), {str(name): value for name, value in (said.get("binds") or {}).items()}, usual)
        query, skipped = parsed.query, parsed.skipped
        if first:
            query = replace(query, limit=min(query.limit, skipped + 1))
        return Asked(query, skipped, versions)
    limit, by = said.get("limit"), said.get("order_by") or ()
    query = Query(
        str(said["object"]),
        where_of(said.get("where")),
        orders(*([by] if isinstance(by, str) else map(str, by))),
        usual if limit is None else int(limit),
        tuple(map(str, said.get("fields") or ())),
    )
    return Asked(query, 0, versions, bounded=limit is not None)


def where_of(said: Any, depth: int = 2 * DEEPEST) -> Where:
    """Conditions as a child says them: fields and values, or ["all", parts], ["any", parts], ["not", part] and
    [comparison, field, value]. Raises QueryRefused, TypeError, ValueError."""
    if not said:
        return EVERYTHING
    if isinstance(said, dict):
        return equal({str(name): value for name, value in said.items()})
    if depth == 0:
        raise QueryRefused(f"conditions may be nested {DEEPEST} deep.")
    match said:
        case ["all", [*parts]]:
            return every(*(where_of(each, depth - 1) for each in parts))
        case ["any", [*parts]]:
            return AnyOf(tuple(where_of(each, depth - 1) for each in parts))
        case ["not", [*part]]:
            return Not(where_of(part, depth - 1))
        case [str(op), str(name), value]:
            return Condition(name, op, value)  # type: ignore[arg-type]  # which it checks
    raise TypeError("where maps fields to values")
