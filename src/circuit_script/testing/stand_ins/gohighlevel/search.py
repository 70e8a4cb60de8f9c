"""``POST /contacts/search`` as the vendor's page about it describes: filters in groups, sorting, searchAfter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuit_script.testing.stand_ins.gohighlevel.world import Doc, Said, millis, name_of

MOST = 500  # of a page
DEEPEST = 10_000  # of paging by numbers
LONGEST = 75  # characters of a value

ALL = frozenset({"eq", "not_eq", "contains", "not_contains", "exists", "not_exists"})
EQUAL = ALL - {"contains", "not_contains"}
SPAN = frozenset({"range", "exists", "not_exists"})
FIELDS: dict[str, frozenset[str]] = {
    "id": frozenset({"eq", "not_eq"}),
    **dict.fromkeys(("contactName", "assignedTo", "country", "dnd", "email", "followers", "type", "website"), EQUAL),
    **dict.fromkeys(("address", "businessName", "city", "companyName", "firstNameLowerCase", "lastNameLowerCase",
                     "phone", "postalCode", "source", "state", "tags", "timezone"), ALL),
    **dict.fromkeys(("dateAdded", "dateUpdated", "dateOfBirth"), SPAN),
}  # fmt: skip
SORTED = frozenset({"firstNameLowerCase", "lastNameLowerCase", "businessName", "dateAdded", "dateUpdated", "email",
                    "dnd", "source"})  # fmt: skip
TYPES = {
    "NUMERICAL": SPAN | {"eq", "not_eq"},
    "MONETORY": SPAN | {"eq", "not_eq"},
    "DATE": SPAN,
    "CHECKBOX": EQUAL,
    "MULTIPLE_OPTIONS": EQUAL,
}


def refused(words: str) -> Said:
    """The contract knows 400 here, and no 422."""
    return Said(400, words)


def search(contacts: list[Doc], body: Doc, fields: dict[str, Doc]) -> tuple[list[Doc], int]:
    """The page that is asked for, and how many fit in all. Raises Said for what the vendor does not know."""
    size = body.get("pageLimit")
    if not isinstance(size, int) or not 1 <= size <= MOST:
        raise refused(f"pageLimit must not be greater than {MOST}")
    after, page = body.get("searchAfter"), body.get("page")
    if after and page is not None:
        raise refused("page should not be provided with searchAfter")
    if page is not None and (not isinstance(page, int) or page < 1 or page * size > DEEPEST):
        raise refused(f"page * pageLimit must not be greater than {DEEPEST}")
    wanted = _all_of(body.get("filters") or [], fields)
    fitting = [each for each in contacts if wanted(each)]
    if text := str(body.get("query") or "").lower():
        fitting = [each for each in fitting if any(text in str(each.get(name, "")).lower()
                   for name in ("firstName", "lastName", "email", "phone"))]  # fmt: skip
    fitting = _sorted(fitting, body.get("sort") or [{"field": "dateAdded", "direction": "desc"}])
    total = len(fitting)
    start = 0 if page is None else (page - 1) * size
    if after:
        places = {each["id"]: place for place, each in enumerate(fitting)}
        if after[-1] not in places:
            raise refused("searchAfter is invalid")
        start = places[after[-1]] + 1
    return fitting[start : start + size], total


def _sorted(docs: list[Doc], sort: list[Doc]) -> list[Doc]:
    if len(sort) > 2:
        raise refused("only two sorts can be combined")
    docs = sorted(docs, key=lambda each: each["id"])
    for each in reversed(sort):
        if each.get("field") not in SORTED or each.get("direction") not in ("asc", "desc"):
            raise refused(f"cannot sort by {each.get('field')}")
        name = each["field"]
        known = [doc for doc in docs if value_of(doc, name) is not None]
        unknown = [doc for doc in docs if value_of(doc, name) is None]
        docs = sorted(known, key=lambda doc: value_of(doc, name), reverse=each["direction"] == "desc") + unknown
    return docs


def _all_of(filters: list[Doc], fields: dict[str, Doc], group: str = "AND") -> Callable[[Doc], bool]:
    if group not in ("AND", "OR"):
        raise refused("group must be one of the following values: AND, OR")
    tests = [
        _all_of(each["filters"], fields, str(each["group"])) if "group" in each else _one(each, fields)
        for each in filters
    ]
    if group == "OR" and tests:
        return lambda doc: any(test(doc) for test in tests)
    return lambda doc: all(test(doc) for test in tests)


def _one(each: Doc, fields: dict[str, Doc]) -> Callable[[Doc], bool]:
    name, operator, value = str(each.get("field")), each.get("operator"), each.get("value")
    if name.startswith("customFields."):
        found = fields.get(name.removeprefix("customFields."))
        allowed = TYPES.get(found["dataType"], ALL) if found else frozenset[str]()
    else:
        allowed = FIELDS.get(name, frozenset())
    if operator not in allowed:
        raise refused(f"Invalid operator {operator} for field {name}")
    if isinstance(value, str) and len(value) > LONGEST:
        raise refused(f"value must be shorter than or equal to {LONGEST} characters")
    match operator:
        case "exists" | "not_exists":
            return lambda doc: (value_of(doc, name) not in (None, "", [])) == (operator == "exists")
        case "eq" | "not_eq":
            return lambda doc: _equal(value_of(doc, name), value) == (operator == "eq")
        case "contains" | "not_contains":
            if not isinstance(value, str) or not all(letter.isalnum() or letter == " " for letter in value):
                raise refused(f"{operator} does not support special characters")
            return lambda doc: _holds(value_of(doc, name), value) == (operator == "contains")
        case _:
            if not isinstance(value, dict) or not value or set(value) - {"gt", "gte", "lt", "lte"}:
                raise refused("range must have gt, gte, lt or lte")
            dates = name.startswith("date") or (name in fields and fields[name]["dataType"] == "DATE")
            return lambda doc: _within(value_of(doc, name), value, dates)


def value_of(doc: Doc, name: str) -> Any:
    if name.startswith("customFields."):
        return doc["customFields"].get(name.removeprefix("customFields."))
    match name:
        case "firstNameLowerCase" | "lastNameLowerCase":
            found = doc.get(name.removesuffix("LowerCase"))
            return None if found is None else found.lower()
        case "contactName":
            return name_of(doc) or None
        case "address":
            return doc.get("address1")
        case _:
            return doc.get(name)


def _equal(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, list):
        return any(_equal(each, wanted) for each in stored)
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    return stored is not None and (stored == wanted or str(stored) == str(wanted))


def _holds(stored: Any, wanted: str) -> bool:
    if isinstance(stored, list):
        return any(_holds(each, wanted) for each in stored)
    return stored is not None and wanted.lower() in str(stored).lower()


def _within(stored: Any, span: Doc, dates: bool) -> bool:
    if stored is None:
        return False
    number = (lambda each: float(millis(each))) if dates else float
    here = number(stored)
    tests = {"gt": here.__gt__, "gte": here.__ge__, "lt": here.__lt__, "lte": here.__le__}
    return all(bool(tests[name](number(bound))) for name, bound in span.items())
