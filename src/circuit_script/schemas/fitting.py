"""What is wrong with a record, field by field. A record is judged as it is sent and stored: as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

MOST = 3  # faults that are told of one record
MOST_SAID = 200  # characters of what an author's own validator says of one

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "none_required": "must be nothing",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
}


def unfit(schema: type[Any], record: Mapping[str, Any], *, whole: bool = True) -> str | None:
    """What is wrong, as "budget must be a whole number, and is a text"; None when nothing is.

    Without ``whole`` only the fields that are given are judged, as those of an update. Values are not shown: they are
    somebody's data. Raises what an author's own validator raises that is no ValueError.
    """
    try:
        sent = msgspec.json.encode(record, enc_hook=str)
    except UnicodeEncodeError:
        return "the record has text that is no Unicode"
    try:
        schema.__pydantic_validator__.validate_json(sent, strict=True)
    except ValueError as error:
        told: dict[str, None] = {}
        for fault in _faults(error):
            if whole or fault["type"] != "missing":
                told.setdefault(_said(fault, record, schema))
        words = list(told)
        more = f", and {len(words) - MOST} more" if len(words) > MOST else ""
        return "; ".join(words[:MOST]) + more if words else None
    return None


def _faults(error: ValueError) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = error.errors(include_url=False, include_input=False)  # type: ignore[attr-defined]  # pydantic's own
    return faults


def _said(fault: dict[str, Any], record: Mapping[str, Any], schema: type[Any]) -> str:
    """One fault. Of a field that may be of several kinds pydantic tells a fault for each; they are one here."""
    path = fault["loc"]
    own = str(path[0]) if path else "the record"  # as the record has it
    name, alternatives = _field(own, schema)
    if fault["type"] in ("value_error", "assertion_error"):
        why = str((fault.get("ctx") or {}).get("error") or fault["msg"])[:MOST_SAID]
        return f"{name}: {why}"
    value = record.get(own)
    if len(path) > 1 and isinstance(value, list | dict) and isinstance(path[-1], int | str):
        inner = next((each for each in path[1:] if isinstance(each, int)), None)
        if isinstance(value, list) and inner is not None and inner < len(value):
            return f"{name}[{inner}] {_words(fault)}, and is {_kind(value[inner])}"
    if fault["type"] == "missing" and len(path) == 1:
        return f"{name} is missing"
    if len(path) > 1:  # one of several kinds that it may be
        return f"{name} must be {_shown(alternatives)}, and is {_kind(value)}"
    told = f"{name} {_words(fault)}"
    return f"{told}, and is {_kind(value)}" if fault["type"].endswith(("_type", "_parsing", "_float")) else told


def _field(own: str, schema: type[Any]) -> tuple[str, Any]:
    """A field by the name that a record has for it: its usual name, and its type."""
    found = schema.model_fields.get(own)
    if found is not None:
        return own, found.annotation
    for each in schema.model_fields.values():
        names = getattr(each.validation_alias, "choices", [each.validation_alias])
        if own in names:
            return str(names[0]), each.annotation
    return own, None


def _words(fault: dict[str, Any]) -> str:
    known = _WORDS.get(fault["type"])
    if known is None:
        return str(fault["msg"]).replace("Input should be", "must be")[:MOST_SAID]
    said = known.format_map(fault.get("ctx") or {})
    return said if len(said) <= MOST_SAID else f"{said[: MOST_SAID - 1]}…"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "something else")


def _shown(annotation: Any) -> str:
    """A type as its author wrote it."""
    return str(getattr(annotation, "__name__", "") if isinstance(annotation, type) else annotation).replace(
        "typing.", ""
    )
