"""Echoes: a vendor's webhook about our own write, which starts no trigger.

In doubt a change is no echo: to run a handler once more costs little, to hide a change loses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CUSTOM_FIELDS = "customFields"
_ABSENT = object()
_NO_KEYS: Mapping[str, str] = {}


def is_echo(
    incoming: Mapping[str, Any],
    stored: Mapping[str, Any],
    written: Mapping[str, Any],
    keys: Mapping[str, str] = _NO_KEYS,
) -> bool:
    """True when the change says nothing that is not stored, leaves nothing out, and something of it was written by us.

    ``stored`` includes our own writes; ``written`` holds those alone. ``keys`` are the names of custom fields by
    the ids that stand in their list. What we wrote may be left out, as webhooks do not say all; but a list of custom
    fields says all of them.
    """
    listed = frozenset(keys.values()) if isinstance(incoming.get(CUSTOM_FIELDS), list) else frozenset()
    for name in stored.keys() - incoming.keys():
        untold = name in written and same(stored[name], written[name]) and name not in listed
        if not untold and not _empty(stored[name]):
            return False
    ours = False
    for name, value in incoming.items():
        if name == "id":
            continue
        known = stored.get(name, _ABSENT)
        if not same(value, known) and not (name == CUSTOM_FIELDS and _entries_stand(value, known, stored, keys)):
            return False
        ours = ours or (name in written and same(value, written[name]))
    return ours


def is_birth(incoming: Mapping[str, Any], stored: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """True when a new record is one that we have made: all that we wrote of it stands in it as we wrote it. What its
    vendor puts in beside that is no change of anybody's."""
    ours = False
    for name, value in written.items():
        if name == "id" or (name not in incoming and _empty(value)):
            continue
        found = incoming.get(name, _ABSENT)
        if not same(found, value) and not (name in stored and same(found, stored[name])):
            return False
        ours = True
    return ours


def _entries_stand(entries: Any, known: Any, stored: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    """True for a list of custom fields, ``[{"id": …, "value": …}]``, in which each stands as it is stored (in the same
    list, or under its own name, where sources put them as well and our own writes are) and none that was there is
    missing."""

    def stands(entry: Any) -> bool:
        if not isinstance(entry, dict):
            return False
        name = str(entry.get("id"))
        return same(entry.get("value"), stored.get(keys.get(name, name), _ABSENT))

    before = known if isinstance(known, list) else []
    if not isinstance(entries, list):
        return False
    there = {str(each.get("id")) for each in entries if isinstance(each, dict)}
    return all(each in entries or (isinstance(each, dict) and str(each.get("id")) in there) for each in before) and all(
        entry in before or stands(entry) for entry in entries
    )


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def same(one: Any, other: Any) -> bool:
    """Equal, or equal as text: vendors return a number that was written as a string, and the reverse, and a list or a
    mapping that was written into a field of text as JSON."""
    if one == other:
        return True
    if isinstance(one, str | int | float) and isinstance(other, str | int | float):
        return str(one) == str(other) or _spelled(one) == _spelled(other)
    if isinstance(one, str) and isinstance(other, list | dict):
        return _is_json_of(one, other)
    return isinstance(other, str) and isinstance(one, list | dict) and _is_json_of(other, one)


def _spelled(value: str | int | float) -> str:
    """A scalar as text: true and false as JSON has them."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _is_json_of(text: str, value: list[Any] | dict[str, Any]) -> bool:
    if text[:1] != ("[" if isinstance(value, list) else "{"):
        return False
    try:
        return json.dumps(json.loads(text), sort_keys=True) == json.dumps(value, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        return False
