"""A query for contacts as the filters of ``POST /contacts/search``.

The vendor's contract says nothing of the body; its page about contact search lists fields and, for each, the operators.
Of these only such are used that leave out no row which matches: the rest is filtered here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from circuit_script.connectors.gohighlevel.fields import NUMBERS, TEXTS, Customs
from circuit_script.connectors.gohighlevel.objects import CONTACT, text_of
from circuit_script.connectors.query import EVERYTHING, All, AnyOf, Condition, Not, Query, Where, split, words
from circuit_script.connectors.values import moment

PAGE = 500  # contacts
LONGEST = 75  # characters of a value
MOST_VALUES = 50  # of an `in`
_TEXT = {"city": "city", "state": "state", "postalCode": "postalCode", "source": "source", "timezone": "timezone",
         "companyName": "companyName", "phone": "phone", "address1": "address"}  # fmt: skip
_NAMES = {"firstName": "firstNameLowerCase", "lastName": "lastNameLowerCase"}
_EQUAL = {name: name for name in ("email", "assignedTo", "country", "type", "website")}
_MOMENTS = {"dateAdded": "dateAdded", "dateUpdated": "dateUpdated"}
_RANGE = {"gt": "gte", "ge": "gte", "lt": "lte", "le": "lte"}  # wider by what the vendor's clock may round
_YEAR_1970 = 719_163 * 86_400  # seconds from the first moment that `moment` counts from
_plain = re.compile(r"[A-Za-z0-9]{1,75}").fullmatch

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Search:
    """What the vendor is asked (``body``, without location and page), and what of the query is done here."""

    body: Filter
    here: Where
    ordered: bool


def search_of(query: Query, customs: Customs | None) -> Search:
    """``customs`` None: they are not known yet, and fields that the vendor does not have are taken for such."""
    asked, here = split(query.where, lambda each: filter_of(each, customs) is not None)
    body: Filter = {}
    if asked != EVERYTHING:
        body["filters"] = [_compiled(each, customs) for each in (asked.parts if isinstance(asked, All) else (asked,))]
    sort = [(each.field, each.descending) for each in query.order_by]
    ordered = not sort or (len(sort) == 1 and sort[0][0] in _MOMENTS)
    name, falling = sort[0] if sort and ordered else ("dateAdded", True)
    body["sort"] = [{"field": name, "direction": "desc" if falling else "asc"}]
    return Search(body, here, ordered)


def _compiled(where: Where, customs: Customs | None) -> Filter:
    match where:
        case Condition():
            found = filter_of(where, customs)
            assert found is not None  # `split` has asked
            return found
        case All(parts):
            return {"group": "AND", "filters": [_compiled(each, customs) for each in parts]}
        case AnyOf(parts):
            return {"group": "OR", "filters": [_compiled(each, customs) for each in parts]}
        case Not():
            raise AssertionError("a negation is never asked of the vendor")


def filter_of(condition: Condition, customs: Customs | None) -> Filter | None:
    """One condition as a filter that every matching contact passes; None where there is none."""
    name, op, value = condition.field, condition.op, condition.value
    if op == "in":
        if not 0 < len(value) <= MOST_VALUES:
            return None
        each = [filter_of(Condition(name, "eq", one), customs) for one in value]
        return None if None in each else {"group": "OR", "filters": each}
    if name in _MOMENTS:
        return _span(name, op, value)
    if name in _NAMES:
        return _texts(_NAMES[name], op, value, str.lower)
    if name in _TEXT:
        return _texts(_TEXT[name], op, value)
    if name in _EQUAL:
        return _texts(_EQUAL[name], op, value) if op == "eq" else _there(_EQUAL[name], op, value)
    if name == "id":
        return _texts("id", op, value) if op == "eq" else None
    if name == "tags":
        return _filter("tags", "eq", value.lower()) if op == "contains" and 0 < len(value) <= LONGEST else None
    if name == "dnd":
        return _filter("dnd", "eq", True) if op == "eq" and value is True else None
    return _custom(name, op, value, customs)


def _texts(name: str, op: str, value: Any, made: Callable[[str], str] = str) -> Filter | None:
    if op == "eq":
        fits = isinstance(value, str) and 0 < len(value) <= LONGEST and moment(value) is None
        return _filter(name, "eq", made(value)) if fits else None
    if op in ("contains", "starts_with", "ends_with"):  # the vendor takes no special characters here
        return _filter(name, "contains", made(value)) if _plain(value) else None
    return _there(name, op, value)


def _there(name: str, op: str, value: Any) -> Filter | None:
    """That it has a value may be asked; that it has none may not: nobody knows whether empty text counts there."""
    return {"field": name, "operator": "exists"} if op == "is_null" and value is False else None


def _span(name: str, op: str, value: Any) -> Filter | None:
    if op not in _RANGE or (instant := moment(value)) is None:
        return _there(name, op, value)
    seconds = instant / 1_000_000 - _YEAR_1970
    slack = -0.001 if op in ("gt", "ge") else 0.001
    try:
        return _filter(name, "range", {_RANGE[op]: text_of(seconds + slack)})
    except (ValueError, OverflowError, OSError):
        return None


def _custom(name: str, op: str, value: Any, customs: Customs | None) -> Filter | None:
    if name in CONTACT.takes or name in CONTACT.keeps:  # the vendor's own, whatever custom field is called so, too
        return None
    if customs is None:  # it is only explained
        where, numbers, texts = f"customFields.<{name[:60]}>", True, True
    else:
        custom = customs.find("contact", name)
        if custom is None:
            return None
        where, numbers, texts = f"customFields.{custom.id}", custom.type in NUMBERS, custom.type in TEXTS
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    if numbers and number and op == "eq":
        return _filter(where, "eq", value)
    if numbers and number and op in _RANGE:
        return _filter(where, "range", {_RANGE[op]: value})
    if texts and isinstance(value, str):
        return _texts(where, op, value)
    return _there(where, op, value)


def _filter(name: str, operator: str, value: Any) -> Filter:
    return {"field": name, "operator": operator, "value": value}


def done_here(here: Where) -> tuple[str, ...]:
    return (
        () if here == EVERYTHING else (f"filters by {words(here)}: the vendor cannot be asked for it, or not exactly",)
    )
