"""Queries as an author writes them: built of parts, or as text. Nothing is asked before it is awaited.

What is asked travels as plain lists to the broker, which alone knows what they mean.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from typing import Any, ParamSpec, cast
from uuid import UUID

from circuit_script.errors import QueryRefused
from circuit_script.execution.authoring.records import Record
from circuit_script.execution.outcome import VERSION
from circuit_script.execution.session import session

SUFFIXES = ("eq", "ne", "gt", "ge", "lt", "le", "in", "not_in", "contains", "starts_with", "ends_with", "is_null")
# Endings that people know from elsewhere.
_ELSEWHERE = {
    "gte": "ge", "lte": "le", "exact": "eq", "iexact": "contains", "icontains": "contains", "isnull": "is_null",
    "startswith": "starts_with", "istartswith": "starts_with", "endswith": "ends_with", "iendswith": "ends_with",
    "nin": "not_in", "notin": "not_in", "neq": "ne", "isnot": "ne", "like": "contains", "ilike": "contains",
    "range": "ge and le",
}  # fmt: skip

Wire = list[Any]
P = ParamSpec("P")
_on_dropped: Callable[[str, int, str], None] | None = None  # hears of queries that nobody awaited


def on_dropped(heard: Callable[[str, int, str], None]) -> None:
    """Tell this function (file, line, call) of every query of this process that was never awaited."""
    global _on_dropped
    _on_dropped = heard


def lazily(function: Callable[P, Selection]) -> Callable[P, Selection]:
    """Mark what gives something that must be awaited, though it is no coroutine function: who reads an app looks for
    calls of it that stand alone."""
    function.must_be_awaited = True  # type: ignore[attr-defined]
    return function


class Q:
    """Conditions on fields, to be joined: ``Q(city="Waco") | Q(city__starts_with="San")``, ``~Q(dnd=True)``.

    A name is a field, or a field with an ending: ``__eq``, ``__ne``, ``__gt``, ``__ge``, ``__lt``, ``__le``, ``__in``,
    ``__not_in``, ``__contains``, ``__starts_with``, ``__ends_with``, ``__is_null``. Without one the field equals the
    value, or one of a list of values. A mapping takes names as they are: ``Q({"first name": "Ann"})``. All conditions
    of one Q hold; ``&``, ``|`` and ``~`` make other ones. Raises QueryRefused for an ending that there is not.
    """

    __slots__ = ("_wire",)

    def __init__(self, where: Mapping[str, Any] | None = None, /, **conditions: Any) -> None:
        parts = [_equal(str(name), value) for name, value in (where or {}).items()]
        parts += [_condition(name, value) for name, value in conditions.items()]
        self._wire: Wire = parts[0] if len(parts) == 1 else ["all", parts]

    def __and__(self, other: object) -> Q:
        return self._joined("all", other) if isinstance(other, Q) else NotImplemented

    def __or__(self, other: object) -> Q:
        return self._joined("any", other) if isinstance(other, Q) else NotImplemented

    def __invert__(self) -> Q:
        return _q(["not", self._wire])

    def _joined(self, how: str, other: Q) -> Q:
        """As flat as can be: long chains are no deep ones."""
        parts = [part for each in (self._wire, other._wire) for part in (each[1] if each[0] == how else [each])]
        return _q([how, parts])

    def __bool__(self) -> bool:
        raise TypeError("Q is joined by & | ~, not by and, or, not.")

    def __repr__(self) -> str:
        return f"Q({self._wire!r})"


def _q(wire: Wire) -> Q:
    made = Q()
    made._wire = wire
    return made


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """How a query is answered: ``requests`` are what ``connector`` is asked; ``here`` is what is done on our side
    afterwards, and why."""

    connector: str
    requests: tuple[str, ...]
    here: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = "\n".join(f"  {each}" for each in self.requests)
        left = "\n".join(f"  {each}" for each in self.here) or "  nothing"
        return f"{self.connector} is asked:\n{asked}\nand here is done:\n{left}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a query says so far. ``text`` is SOQL, which says all by itself."""

    object: str = ""
    where: tuple[Wire, ...] = ()
    order_by: tuple[str, ...] = ()
    limit: int | None = None
    fields: tuple[str, ...] = ()
    text: str | None = None
    binds: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        if self.text is not None:
            return {"soql": self.text, "binds": self.binds, "versions": True, "told": True}
        return {
            "object": self.object,
            "where": ["all", list(self.where)],
            "order_by": list(self.order_by),
            "limit": self.limit,
            "fields": list(self.fields),
            "versions": True,
            "told": True,
        }


class Selection(Coroutine[Any, Any, list[Record]]):
    """A query, not yet asked. ``where``, ``order_by``, ``limit`` and ``only`` give another one; it can be asked as
    often as wanted.

    ``await`` it for a list of records, or read it with ``async for``, which fetches pages of up to 1,000 as they are
    needed. Raises QueryRefused for what cannot be asked, and what the CRM raises: RequestRefused, LimitExceeded.
    """

    __slots__ = ("_asked", "_place", "_running", "_used")

    def __init__(self, asked: _Asked, place: tuple[str, int]) -> None:
        self._asked = asked
        self._place = place
        self._running: Coroutine[Any, Any, list[Record]] | None = None
        self._used = False

    def where(self, *parts: Q | Mapping[str, Any], **conditions: Any) -> Selection:
        """Only records of which these hold, too: `Q`, mappings of fields to values, or conditions as `Q` takes them."""
        self._used = True  # also where this refuses
        wires: list[Wire] = []
        for each in parts:
            if not isinstance(each, (Q, Mapping)):
                raise QueryRefused(f"where takes conditions and Q, not a {type(each).__name__}.")
            wires.append(each._wire if isinstance(each, Q) else Q(each)._wire)
        if conditions:
            wires.append(Q(**conditions)._wire)
        return self._with("where", where=(*self._asked.where, *wires))

    def order_by(self, *fields: str) -> Selection:
        """In the order of these fields, the first one first; ``-`` before one means falling. Nulls stand last."""
        self._used = True
        for each in fields:
            if not isinstance(each, str):
                raise QueryRefused(f"order_by takes names of fields, not a {type(each).__name__}.")
        return self._with("order_by", order_by=fields)

    def limit(self, rows: int) -> Selection:
        """So many records at most: 1 to 50,000. Without it ``await`` gives up to 1,000, and ``async for`` all that
        match, up to 50,000."""
        return self._with("limit", limit=rows)

    def only(self, *fields: str) -> Selection:
        """Records with these fields alone, and ``id``."""
        return self._with("only", fields=fields)

    def __await__(self) -> Generator[Any, Any, list[Record]]:
        return self._rows().__await__()

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Each record, from pages of up to 1,000. Each page counts as one of ``db_queries``, its rows as ``db_rows``.

        What this execution wrote before is seen in them; a record that it inserts meanwhile is not.
        """
        self._used = True
        asked = self._asked.arguments()
        while True:
            page = _taken(await session().request("page", asked, dict[str, Any]))
            for row in page["rows"]:
                yield record_of(row)
            if page["after"] is None:
                return
            asked = {"after": page["after"], "told": True}

    async def first(self) -> Record | None:
        """The first record, or None."""
        self._used = True
        asked = self._asked.arguments()
        if self._asked.text is None:
            asked["limit"] = 1
        rows = await _rows_of({**asked, "first": True})
        return rows[0] if rows else None

    async def count(self) -> int:
        """How many records match: 50,000 at most, or the limit. It reads them, so it costs ``db_rows``; ``db_queries``
        for each 1,000."""
        self._used = True
        found = _taken(await session().request("count", self._asked.arguments(), dict[str, Any]))
        return int(found["count"])

    async def explain(self) -> QueryPlan:
        """How it would be answered, without asking anybody: what the CRM is asked, and what is done here."""
        self._used = True
        plan = _taken(await session().request("explain", self._asked.arguments(), dict[str, Any]))
        return QueryPlan(plan["connector"], tuple(plan["requests"]), tuple(plan["here"]))

    # As a coroutine, so that it can be made a task of.

    def send(self, value: Any) -> Any:
        if self._running is None:
            self._running = self._rows()
        return self._running.send(value)

    def throw(self, *error: Any) -> Any:
        if self._running is None:
            self._running = self._rows()
        return self._running.throw(*error)

    def close(self) -> None:
        self._used = True
        if self._running is not None:
            self._running.close()

    def __del__(self) -> None:
        if not self._used and _on_dropped is not None:
            _on_dropped(*self._place, "CircuitDB.query")

    def __repr__(self) -> str:
        return f"<query of {self._asked.object or 'SOQL'}, not awaited yet>"

    def _rows(self) -> Coroutine[Any, Any, list[Record]]:
        self._used = True
        return _rows_of(self._asked.arguments())

    def _with(self, what: str, **changes: Any) -> Selection:
        self._used = True
        if self._asked.text is not None:
            raise QueryRefused(f"a query in SOQL takes no .{what}(): its text says everything.")
        return Selection(replace(self._asked, **changes), self._place)


def selection(
    object: str,
    where: Mapping[str, Any] | Q | None,
    order_by: str | Sequence[str] | None,
    limit: int | None,
    binds: Mapping[str, Any] | None,
) -> Selection:
    """A query of an object's records, or one in SOQL. To be called by what an author calls."""
    caller = sys._getframe(2)
    place = caller.f_code.co_filename, caller.f_lineno
    if is_soql(object):
        if where or order_by or limit is not None:
            raise QueryRefused("a query in SOQL takes binds alone: its text says everything.")
        given = {str(name): plain(value) for name, value in (binds or {}).items()}
        return Selection(_Asked(text=object, binds=given), place)
    if binds is not None:
        raise QueryRefused("binds are for a query in SOQL.", cure="It begins with SELECT.")
    if where is not None and not isinstance(where, (Mapping, Q)):
        raise QueryRefused(f"where maps fields to values, and is no {type(where).__name__}.")
    wires = () if where is None else (where._wire if isinstance(where, Q) else Q(where)._wire,)
    orders = (order_by,) if isinstance(order_by, str) and order_by else tuple(order_by or ())
    return Selection(_Asked(object, wires, orders, limit), place)


def is_soql(said: Any) -> bool:
    """Whether it is a query in words, and no name of an object."""
    return isinstance(said, str) and said.lstrip()[:6].lower() == "select" and len(said.split(None, 1)) > 1


def record_of(row: dict[str, Any]) -> Record:
    """A record with the version by which it was read."""
    version = row.pop(VERSION, None)
    record = Record(row)
    if version is not None:
        record.version = version
    return record


async def _rows_of(asked: dict[str, Any]) -> list[Record]:
    rows = _taken(await session().request("query", asked, cast("type[Any]", list[dict[str, Any]] | dict[str, Any])))
    return [record_of(row) for row in rows]


def _taken(answer: Any) -> Any:
    """The broker's answer. Raises QueryRefused with all that it says."""
    if isinstance(answer, dict) and (refused := answer.get("refused")) is not None:
        detail, cure, page, position = refused
        raise QueryRefused(detail, cure=cure, page=page, position=position)
    return answer


def _condition(name: str, value: Any) -> Wire:
    """A field with its ending. Raises QueryRefused for one that is none, but looks like it."""
    stem, sign, suffix = name.rpartition("__")
    if not sign or not stem:
        return _equal(name, value)
    if suffix == "in" or suffix == "not_in":
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
            raise QueryRefused(f"{name} takes a list of values, not a {type(value).__name__}.")
        return [suffix, stem, [plain(each) for each in value]]
    if suffix in SUFFIXES:
        return [suffix, stem, plain(value)]
    meant = _ELSEWHERE.get(suffix.lower()) or next(iter(get_close_matches(suffix, SUFFIXES, n=1, cutoff=0.8)), None)
    if meant is not None:
        raise QueryRefused(
            f"{name}: there is no ending __{suffix}.",
            cure=f'Write {stem}__{meant}; or Q({{"{name}": …}}), if the field is called so.',
        )
    return _equal(name, value)  # the field of a vendor: Tier__c


def _equal(name: str, value: Any) -> Wire:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ["in", name, [plain(each) for each in value]]
    return ["eq", name, plain(value)]


def plain(value: Any) -> Any:
    """A value as JSON has it: a moment as ISO text, a decimal as a number, an id as text."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case Enum():
            return plain(value.value)
        case list() | tuple() | set() | frozenset():
            return [plain(each) for each in value]
        case _:
            return value
