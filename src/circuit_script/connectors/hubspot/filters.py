"""Queries as filters of HubSpot's search.

At most five groups, of which one must hold, of at most six filters, which all must hold; eighteen together, and 3,000
characters. Its words about text (tokens, no case) are not ours, so it is asked only where it leaves out no row that is
wanted; what does not fit is left out of the question, and filtered here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from circuit_script.connectors.hubspot.names import IDENTITY, is_id
from circuit_script.connectors.hubspot.settings import CONTACT
from circuit_script.connectors.query import All, AnyOf, Condition, Where
from circuit_script.connectors.values import moment

GROUPS, FILTERS, TOGETHER = 5, 6, 18
LONGEST = 3000  # characters of a body
LONGEST_TEXT = 200  # characters of a value that is asked for
MOST_VALUES = 100
LONGEST_LIST = 1200  # characters of all values of a list
SIGNS = {"gt": "GT", "ge": "GTE", "lt": "LT", "le": "LTE"}
_EPOCH = 719_163 * 86_400 * 1_000_000  # microseconds from the year 1 to 1970, as `moment` counts

Filter = dict[str, Any]
Kind = Callable[[str], tuple[str, str] | None]  # a field of ours → its property and kind
NEVER: Filter = {"propertyName": IDENTITY, "operator": "EQ", "value": "0"}


def groups_of(where: Where, kind: Kind) -> list[list[Filter]]:
    """The groups of a where of which each condition can be asked (`asked`); one empty group is everything. One slot of
    each is kept for a window."""
    groups = _groups(where, kind)
    most = min(FILTERS, TOGETHER // max(1, len(groups))) - 1
    return [each[:most] for each in groups]


def _groups(where: Where, kind: Kind) -> list[list[Filter]]:
    match where:
        case Condition():
            found = asked(where, kind(where.field))
            return [[]] if found is None else [[found]]
        case AnyOf(parts):
            several = [group for each in parts for group in _groups(each, kind)]
            return [[]] if len(several) > GROUPS or [] in several else several
        case All(parts):
            groups: list[list[Filter]] = [[]]
            for each in parts:
                more = _groups(each, kind)
                if len(groups) * len(more) <= GROUPS:
                    groups = [[*one, *other] for one in groups for other in more]
            return groups
        case _:
            return [[]]


def asked(condition: Condition, known: tuple[str, str] | None) -> Filter | None:
    """The filter that is true of every row for which a condition holds; None where there is none."""
    if condition.field == CONTACT:
        good = condition.op == "eq" and is_id(condition.value)
        return _filter("associations.contact", "EQ", condition.value) if good else None
    if known is None:
        return None
    name, kind = known
    op, value = condition.op, condition.value
    if condition.field == "id":
        return _identity(op, value)
    if op == "is_null" or (op == "eq" and value is None):
        without = value is None or value is True
        return {"propertyName": name, "operator": "NOT_HAS_PROPERTY" if without else "HAS_PROPERTY"}
    match kind:
        case "number":
            return _number(name, op, value)
        case "bool":
            return _filter(name, "EQ", str(value).lower()) if op == "eq" and isinstance(value, bool) else None
        case "date" | "datetime":
            return _instant(name, kind, op, value)
        case "string" | "phone_number" | "enumeration":
            return _text(name, kind, op, value)
    return None


def body_of(groups: list[list[Filter]], after: str, properties: list[str], limit: int) -> tuple[dict[str, Any], bool]:
    """A search behind the id ``after``, in the order of ids; and whether its rows have the properties. Filters that are
    too long for it are left out."""
    window = _filter(IDENTITY, "GT", after)
    sorts = [{"propertyName": IDENTITY, "direction": "ASCENDING"}]
    groups = [list(each) for each in groups]
    while True:
        asked_groups = [{"filters": [*each, window]} for each in groups]
        body = {"filterGroups": asked_groups, "sorts": sorts, "properties": properties, "limit": limit}
        if len(json.dumps(body)) <= LONGEST:
            return body, True
        body["properties"] = [IDENTITY]
        if len(json.dumps(body)) <= LONGEST:
            return body, False
        longest = max(groups, key=lambda group: len(json.dumps(group)))
        longest.remove(max(longest, key=lambda one: len(json.dumps(one))))
        if not longest:  # a group that asks nothing lets everything through
            groups = [[]]


def _filter(name: str, operator: str, value: str) -> Filter:
    return {"propertyName": name, "operator": operator, "value": value}


def _identity(op: str, value: Any) -> Filter | None:
    if op == "eq":
        return _filter(IDENTITY, "EQ", value) if is_id(value) else NEVER
    if op == "in":
        ids = [each for each in value if is_id(each)]
        if not ids:
            return NEVER
        if len(ids) <= MOST_VALUES and sum(len(each) + 4 for each in ids) <= LONGEST_LIST:
            return {"propertyName": IDENTITY, "operator": "IN", "values": ids}
    return None


def _number(name: str, op: str, value: Any) -> Filter | None:
    if op == "in":
        good = value and len(value) <= MOST_VALUES and all(_is_number(each) for each in value)
        return {"propertyName": name, "operator": "IN", "values": [repr(each) for each in value]} if good else None
    operator = "EQ" if op == "eq" else SIGNS.get(op)
    return _filter(name, operator, repr(value)) if operator and _is_number(value) else None


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (abs(value) < 1e15)
        and "e" not in repr(value)
    )


def _instant(name: str, kind: str, op: str, value: Any) -> Filter | None:
    """Moments as milliseconds; asked for a little more than is wanted, of days those around it."""
    if not isinstance(value, str) or (microseconds := moment(value)) is None or op not in {"eq", *SIGNS}:
        return None
    if kind == "date":
        low, high = microseconds - 86_400_000_000, microseconds + 86_400_000_000
    else:
        low, high = microseconds - 1000, microseconds + 1000
    low, high = (low - _EPOCH) // 1000, -((_EPOCH - high) // 1000)
    if op == "eq":
        return {"propertyName": name, "operator": "BETWEEN", "value": str(low), "highValue": str(high)}
    return _filter(name, "GTE", str(low)) if op in ("gt", "ge") else _filter(name, "LTE", str(high))


def _text(name: str, kind: str, op: str, value: Any) -> Filter | None:
    if op == "eq":
        return _filter(name, "EQ", value) if _is_plain(value) else None
    if op == "in" and value and len(value) <= MOST_VALUES and all(_is_plain(each) for each in value):
        values = list(value) if kind == "enumeration" else [each.lower() for each in value]  # it takes small ones
        if sum(len(json.dumps(each)) + 2 for each in values) <= LONGEST_LIST:
            return {"propertyName": name, "operator": "IN", "values": values}
    return None


def _is_plain(value: Any) -> bool:
    """Text that is equal only to itself, and may be asked for."""
    return (
        isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value == value.strip() and moment(value) is None
    )
