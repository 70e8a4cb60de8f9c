"""A query as PostgreSQL is asked: the same rows, in the same order, as `connectors.query` gives.

Nothing that an author says becomes SQL: objects, fields and values travel as values. Every condition is true or false,
never null. Casts stand behind a CASE that has looked at the text, since PostgreSQL may not be asked for a day that
there is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from circuit_script.connectors.query import IDENTITIES, All, AnyOf, Condition, Not, Order, Query, Where
from circuit_script.connectors.values import MOMENT, capitals, folded, moment
from circuit_script.errors import QueryRefused

MAX_INDEXED = 255  # bytes of a contactId in its index

SELECT = """
SELECT r.data || jsonb_build_object('id', r.id), r.xmin::text::bigint FROM circuit.records r
WHERE r.tenant = circuit.current_tenant() AND r.object = %s AND NOT r.deleted
"""

# The instant of a text, null where it is none. A date is its midnight, no offset is UTC, and of a second's fraction
# the microseconds count.
_INSTANT = f"""(SELECT CASE WHEN m.t ~ '^{MOMENT}$' THEN
  CASE WHEN substr(m.t, 9, 2)::int
       <= extract(day FROM (substr(m.t, 1, 7) || '-01')::date + interval '1 month' - interval '1 day')
  THEN (regexp_replace(m.t, '([.][0-9]{{6}})[0-9]+', '\\1')
        || CASE WHEN length(m.t) = 10 THEN ' 00:00Z' WHEN m.t ~ '(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$' THEN '' ELSE 'Z' END
       )::timestamptz END END FROM (SELECT r.data ->> %s) AS m (t))"""
_TEXT = "CASE WHEN jsonb_typeof(r.data -> %s) = 'string' THEN r.data ->> %s END"
_NUMBER = "CASE WHEN jsonb_typeof(r.data -> %s) = 'number' THEN (r.data -> %s)::numeric END"
# `identity`: text, and whole numbers as text.
_CONTACT = """CASE jsonb_typeof(r.data -> 'contactId') WHEN 'string' THEN r.data ->> 'contactId'
  WHEN 'number' THEN CASE WHEN r.data ->> 'contactId' ~ '^-?[0-9]+$' THEN r.data ->> 'contactId' END END"""
_NULL = "coalesce(r.data -> %s, 'null'::jsonb) = 'null'::jsonb"
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement and the values that it is sent with."""

    statement: sql.SQL | sql.Composed
    values: list[Any]

    @property
    def shown(self) -> str:
        """As a person reads it."""
        values = ", ".join(repr(each.obj if isinstance(each, Jsonb) else each)[:200] for each in self.values)
        return f"{' '.join(self.statement.as_string().split())} -- with {values}"[:10_000]


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of SQL with its values."""

    text: str
    values: tuple[Any, ...] = ()


def compile_query(query: Query, after: str | None, size: int) -> Bound:
    """One page of a query. ``after`` is an id, or the place in an ordered one."""
    parts = [_Part(SELECT, (query.object,))]
    if query.where != All(()):
        parts += [_Part("AND"), compile_where(query.where)]
    if query.order_by:
        keys = [key for each in query.order_by for key in _keys(each)]
        keys.append(_Part('r.id COLLATE "C"'))
        parts.append(_Part("ORDER BY"))
        parts.append(_joined(keys, ", "))
        parts.append(_Part("LIMIT %s OFFSET %s", (size, place_of(after))))
    else:
        if after is not None:
            parts.append(_Part("AND r.id > %s", (after,)))
        parts.append(_Part("ORDER BY r.id LIMIT %s", (size,)))
    whole = _joined(parts, " ")
    return Bound(sql.SQL(whole.text), list(whole.values))  # made of constants alone


def place_of(after: str | None) -> int:
    """Where a page of an ordered query begins. Raises QueryRefused."""
    if after is not None and not (after.isascii() and after.isdigit()):
        raise QueryRefused("this page was never handed out.")
    return int(after or 0)


def compile_where(where: Where) -> _Part:
    match where:
        case Condition(field=name) if name in IDENTITIES:
            return _identity(where)
        case Condition():
            return _condition(where)
        case All(()):
            return _Part("true")
        case AnyOf(()):
            return _Part("false")
        case All(parts):
            return _joined([compile_where(each) for each in parts], " AND ", around=True)
        case AnyOf(parts):
            return _joined([compile_where(each) for each in parts], " OR ", around=True)
        case Not(part):
            inner = compile_where(part)
            return _Part(f"NOT {inner.text}", inner.values)


def _condition(asked: Condition) -> _Part:
    """One comparison, in brackets."""
    name, op, wanted = asked.field, asked.op, asked.value
    match op:
        case "is_null":
            return _Part(f"({'' if wanted else 'NOT '}{_NULL})", (name,))
        case "eq" | "in":
            return _equal(name, (wanted,) if op == "eq" else wanted)
        case "ne" | "not_in":
            same = _equal(name, (wanted,) if op == "ne" else wanted)
            return _Part(f"(NOT {same.text})", same.values)
        case "contains" | "starts_with" | "ends_with":
            found = _has(_Part(_TEXT, (name, name)), op, wanted)
            return found if op != "contains" else _joined([found, _member(name, wanted)], " OR ", around=True)
        case _:
            return _compared(name, _SIGNS[op], wanted)


def _equal(name: str, wanted: Sequence[Any]) -> _Part:
    """Equal to one of these, in brackets."""
    instants = [_instant(each) for each in wanted if moment(each) is not None]
    values = [Jsonb(each) for each in wanted if each is not None and moment(each) is None]
    parts = []
    if None in wanted:
        parts.append(_Part(_NULL, (name,)))
    if instants:
        parts.append(_Part(f"coalesce({_INSTANT} = ANY(%s::timestamptz[]), false)", (name, instants)))
    if len(values) == 1:
        parts.append(_Part("coalesce(r.data -> %s = %s, false)", (name, values[0])))
    elif values:
        parts.append(_Part("coalesce(r.data -> %s = ANY(%s::jsonb[]), false)", (name, values)))
    return _joined(parts or [_Part("false")], " OR ", around=True)


def _compared(name: str, sign: str, wanted: Any) -> _Part:
    if not isinstance(wanted, str):
        return _Part(f"coalesce({_NUMBER} {sign} %s::numeric, false)", (name, name, repr(wanted)))
    if moment(wanted) is not None:
        return _Part(f"coalesce({_INSTANT} {sign} %s::timestamptz, false)", (name, _instant(wanted)))
    return _Part(f'coalesce(({_TEXT}) COLLATE "C" {sign} %s, false)', (name, name, wanted))


def _has(text: _Part, op: str, wanted: str) -> _Part:
    """A text has this in it, without case. Only those letters are made small that matter."""
    large, small = capitals(folded(wanted))
    wanted = folded(wanted)
    same = _Part(f"translate({text.text}, %s, %s)", (*text.values, large, small))
    match op:
        case "contains":
            return _Part(f"coalesce(strpos({same.text}, %s) > 0, false)", (*same.values, wanted))
        case "starts_with":
            return _Part(f"coalesce(left({same.text}, %s) = %s, false)", (*same.values, len(wanted), wanted))
        case _:
            return _Part(f"coalesce(right({same.text}, %s) = %s, false)", (*same.values, len(wanted), wanted))


def _member(name: str, wanted: str) -> _Part:
    """A list has this text among its members, without case."""
    large, small = capitals(folded(wanted))
    return _Part(
        "EXISTS (SELECT FROM jsonb_array_elements(CASE WHEN jsonb_typeof(r.data -> %s) = 'array' THEN r.data -> %s "
        "ELSE '[]' END) AS e (v) WHERE jsonb_typeof(e.v) = 'string' AND translate(e.v #>> '{}', %s, %s) = %s)",
        (name, name, large, small, folded(wanted)),
    )


def _identity(asked: Condition) -> _Part:
    """A condition on an id, which is text, and has an index."""
    op, wanted, contact = asked.op, asked.value, asked.field == "contactId"
    text = _CONTACT if contact else "r.id"
    null = "coalesce(r.data -> 'contactId', 'null'::jsonb) = 'null'::jsonb" if contact else "false"
    match op:
        case "is_null":
            return _Part(f"({'' if wanted else 'NOT '}({null}))")
        case "eq" | "in":
            several = (wanted,) if op == "eq" else wanted
            given = [each for each in several if each is not None]
            parts = [_Part(null)] if None in several else []
            if not contact:
                parts.append(_Part("r.id = ANY(%s)", (given,)))
            elif all(len(each.encode()) <= MAX_INDEXED for each in given):
                parts.append(_Part(f"coalesce(r.contact = ANY(%s) AND {text} IS NOT NULL, false)", (given,)))
            else:
                parts.append(_Part(f"coalesce({text} = ANY(%s), false)", (given,)))
            return _joined(parts, " OR ", around=True)
        case "ne" | "not_in":
            same = _identity(Condition(asked.field, "eq" if op == "ne" else "in", wanted))
            return _Part(f"(NOT {same.text})", same.values)
        case "contains" | "starts_with" | "ends_with":
            return _has(_Part(text), op, wanted)
        case _:
            return _Part(f'coalesce(({text}) COLLATE "C" {_SIGNS[op]} %s, false)', (wanted,))


def _keys(order: Order) -> list[_Part]:
    """What rows are sorted by: what kind of value it is, then the value."""
    name, way = order.field, "DESC" if order.descending else "ASC"
    if name == "id":
        return [_Part(f'r.id COLLATE "C" {way}')]
    if name == "contactId":
        kind = "CASE WHEN jsonb_typeof(r.data -> 'contactId') <> 'null' THEN " + f"({_CONTACT}) IS NULL END"
        return [_Part(f"{kind} {way} NULLS LAST"), _Part(f'({_CONTACT}) COLLATE "C" {way}')]
    kind = (
        f"CASE jsonb_typeof(r.data -> %s) WHEN 'string' THEN CASE WHEN {_INSTANT} IS NULL THEN 1 ELSE 0 END "
        "WHEN 'number' THEN 2 WHEN 'boolean' THEN 3 WHEN 'array' THEN 4 WHEN 'object' THEN 4 END"
    )
    truth = "CASE WHEN jsonb_typeof(r.data -> %s) = 'boolean' THEN (r.data -> %s)::boolean END"
    return [
        _Part(f"{kind} {way} NULLS LAST", (name, name)),
        _Part(f"{_INSTANT} {way}", (name,)),
        _Part(f'({_TEXT}) COLLATE "C" {way}', (name, name)),
        _Part(f"({_NUMBER}) {way}", (name, name)),
        _Part(f"({truth}) {way}", (name, name)),
    ]


def _instant(text: str) -> str:
    """A moment as PostgreSQL reads it whatever its session's time zone."""
    if len(text) == 10:
        return f"{text} 00:00Z"
    whole, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{whole}.{digits[:6]}{rest[len(digits) :]}"
    time = text[10:]
    return text if time.endswith("Z") or "+" in time or "-" in time else f"{text}Z"


def _joined(parts: Sequence[_Part], between: str, *, around: bool = False) -> _Part:
    text = between.join(each.text for each in parts)
    values = tuple(value for each in parts for value in each.values)
    return _Part(f"({text})" if around else text, values)
