"""Queries as SOQL.

Names come from what the org describes, values only as literals of their field's type, so no text of anybody's becomes
a part of the statement. A condition is asked of Salesforce where it leaves out no row that is wanted: it compares text
without case and orders it by its own rules, so that what is more, or in another order, is put right here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from circuit_script.connectors.query import (
    EVERYTHING,
    All,
    AnyOf,
    Condition,
    Not,
    Order,
    Query,
    Where,
    conditions,
    split,
    words,
)
from circuit_script.connectors.salesforce.described import FieldType
from circuit_script.connectors.salesforce.names import is_id
from circuit_script.connectors.values import moment
from circuit_script.errors import RequestRefused

LONGEST = 100_000  # characters of a statement
LONGEST_TEXT = 1000  # characters of a value that is asked for
MOST_VALUES = 2000  # of a list
NOTHING = "Id = null"
TEXTS = frozenset({"string", "email", "phone", "picklist", "url", "textarea", "combobox"})
IDS = frozenset({"id", "reference"})
NUMBERS = frozenset({"double", "currency", "percent", "int", "long"})
INSTANTS = frozenset({"date", "datetime"})
SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
EARLIEST, LATEST = 1700, 4000  # years that Salesforce knows
_ESCAPES = {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Types = Callable[[str], FieldType | None]


@dataclass(frozen=True, slots=True)
class Statement:
    """``text`` is the SOQL; ``here`` is what is done on our side, in words; ``ordered``: rows come in the order."""

    text: str
    here: tuple[str, ...]
    ordered: bool


def statement(query: Query, sobject: str, selected: list[str], types: Types) -> Statement:
    """The statement of a query. ``types`` knows the field of Salesforce's for a name of ours, and raises
    RequestRefused for one that is not there; None is one of which nothing can be asked. Raises RequestRefused for what
    is too long."""
    asked, here = split(query.where, lambda each: comparison(each, types(each.field)) is not None)
    said = [] if here == EVERYTHING else [f"{words(here)}: Salesforce compares otherwise, or not at all"]
    sorts = [(each, types(each.field)) for each in query.order_by]
    ordered = all(_sorts_alike(each) for _, each in sorts)
    if not ordered:
        said.append(f"order by {', '.join(each.field for each in query.order_by)}: Salesforce orders text otherwise")
    parts = [f"SELECT {', '.join(selected)} FROM {sobject}"]
    if asked != EVERYTHING:
        parts.append(f"WHERE {_where(asked, types)}")
    if ordered:
        parts.append(f"ORDER BY {', '.join([*(_order(one, kind) for one, kind in sorts if kind), 'Id'])}")
    else:
        parts.append("ORDER BY Id")
    if ordered and here == EVERYTHING and all(_exact(each, types(each.field)) for each in conditions(asked)):
        parts.append(f"LIMIT {query.limit}")
    else:
        said.append(f"limit {query.limit:,}")
    text = " ".join(parts)
    if len(text) > LONGEST:
        raise RequestRefused(f"the query is too long for Salesforce: {len(text):,} characters.", cure="Ask in parts.")
    return Statement(text, tuple(said), ordered)


def literal(text: str) -> str:
    """Text as a literal."""
    return f"'{_escaped(text)}'"


def comparison(condition: Condition, field: FieldType | None) -> str | None:
    """A condition in SOQL, true of every row that it holds for; None where that cannot be said."""
    if field is None or not field.filterable:
        return None
    name, kind, op, value = field.name, field.kind, condition.op, condition.value
    if op == "is_null":
        if kind == "boolean":
            return None
        return f"{name} {'=' if value else '!='} null"
    if op in ("in", "not_in"):
        return _listed(condition, field)
    if value is None:
        return f"{name} {SIGNS[op]} null" if op in ("eq", "ne") and kind != "boolean" else None
    if kind in TEXTS:
        return _text(name, op, value)
    if kind in IDS:
        if op not in ("eq", "ne") or not isinstance(value, str):
            return None
        if not is_id(value):
            return NOTHING if op == "eq" else None
        return f"{name} = {literal(value)}" if op == "eq" else f"({name} != {literal(value)} OR {name} = null)"
    if kind in NUMBERS:
        if op not in SIGNS or (number := _number(value)) is None:
            return None
        return f"({name} != {number} OR {name} = null)" if op == "ne" else f"{name} {SIGNS[op]} {number}"
    if kind == "boolean":
        return f"{name} {SIGNS[op]} {str(value).upper()}" if op in ("eq", "ne") and isinstance(value, bool) else None
    if kind in INSTANTS and op in SIGNS and isinstance(value, str):
        return _instant(name, kind, op, value)
    return None


def _listed(condition: Condition, field: FieldType) -> str | None:
    name, kind, values = field.name, field.kind, condition.value
    if not values:
        return NOTHING if condition.op == "in" else None
    if len(values) > MOST_VALUES:
        return None
    several = [comparison(Condition(condition.field, "eq", each), field) for each in values]
    if any(each is None for each in several):
        return None
    plain = [_value(each, kind) for each in values if each is not None and (kind not in IDS or is_id(each))]
    if condition.op == "not_in":
        if kind not in NUMBERS | IDS or None in values or not plain or None in plain:
            return None
        return f"({name} NOT IN ({', '.join(str(each) for each in plain)}) OR {name} = null)"
    if None in plain:
        return f"({' OR '.join(str(each) for each in several)})"
    alternatives = [f"{name} IN ({', '.join(str(each) for each in plain)})"] if plain else []
    if None in values:
        alternatives.append(f"{name} = null")
    return f"({' OR '.join(alternatives)})" if alternatives else NOTHING


def _value(value: object, kind: str) -> str | None:
    """One value of a list as a literal, where its kind has one that means just it."""
    if kind in TEXTS | IDS and isinstance(value, str):
        return literal(value)
    return _number(value) if kind in NUMBERS else None


def _text(name: str, op: str, value: object) -> str | None:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        return None
    if op == "eq":
        # What reads as a moment is equal to other texts that mean the same one.
        return f"{name} = {literal(value)}" if value and moment(value) is None else None
    if op not in ("contains", "starts_with", "ends_with") or not value:
        return None
    inner = _pattern(value)
    start, end = "%" if op != "starts_with" else "", "%" if op != "ends_with" else ""
    return f"{name} LIKE '{start}{inner}{end}'"


def _pattern(value: str) -> str:
    """Text inside LIKE. Letters whose case another alphabet's rules decide may be anything there."""
    wild = "".join(each if each.isascii() or each.lower() == each.upper() else "\0" for each in value)
    text = _escaped(re.sub("\0+", "\0", wild).replace("\0", "\ue000"))
    return text.replace("%", "\\%").replace("_", "\\_").replace("\ue000", "%")


def _instant(name: str, kind: str, op: str, value: str) -> str | None:
    """Moments and days are known to the second at least: asked for a little more than is wanted."""
    if (microseconds := moment(value)) is None:
        return NOTHING if op == "eq" else None
    try:
        at = datetime(1, 1, 1) + timedelta(microseconds=microseconds - 86_400 * 1_000_000)
    except OverflowError:
        return None
    if not EARLIEST < at.year < LATEST or op == "ne":
        return None
    if kind == "date":
        low = high = at.date().isoformat()
    else:
        low = at.replace(microsecond=0).isoformat() + "Z"
        high = (at.replace(microsecond=0) + timedelta(seconds=1)).isoformat() + "Z"
    match op:
        case "eq":
            return f"({name} >= {low} AND {name} <= {high})"
        case "gt" | "ge":
            return f"{name} >= {low}"
        case _:
            return f"{name} <= {high}"


def _number(value: object) -> str | None:
    """A number as SOQL writes it; None for none, and for one that has more digits than Salesforce keeps."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 10**15:
        return None
    return str(value) if isinstance(value, int) else format(Decimal(repr(value)), "f")


def _escaped(text: str) -> str:
    text = "".join(_ESCAPES.get(each, each) for each in text)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _where(where: Where, types: Types) -> str:
    match where:
        case Condition():
            return comparison(where, types(where.field)) or NOTHING
        case All(parts):
            return f"({' AND '.join(_where(each, types) for each in parts)})"
        case AnyOf(()):
            return NOTHING
        case AnyOf(parts):
            return f"({' OR '.join(_where(each, types) for each in parts)})"
        case Not():  # `split` leaves none
            raise AssertionError("a negation is never asked of Salesforce")


def _sorts_alike(field: FieldType | None) -> bool:
    return field is not None and field.sortable and field.kind in NUMBERS | INSTANTS | IDS | {"boolean"}


def _order(order: Order, field: FieldType) -> str:
    return f"{field.name} {'DESC' if order.descending else 'ASC'} NULLS LAST"


def _exact(condition: Condition, field: FieldType | None) -> bool:
    """Whether Salesforce finds what is wanted and nothing else, so that it can count."""
    if field is None or condition.op == "is_null":
        return field is not None
    return field.kind in NUMBERS | IDS | {"boolean"}
