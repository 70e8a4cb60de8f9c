"""Echoes: a vendor's webhook about our own write, which starts no trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def is_echo(incoming: Mapping[str, Any], stored: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """True when the change says nothing that is not stored, and something of it was written by us.

    ``stored`` includes our own writes; ``written`` holds those alone.
    """
    ours = False
    for name, value in incoming.items():
        if name == "id":
            continue
        if not same(value, stored.get(name, _ABSENT)) and not _entries_stand(value, stored.get(name), stored):
            return False
        ours = ours or (name in written and same(value, written[name]))
    return ours


def _entries_stand(entries: Any, known: Any, stored: Mapping[str, Any]) -> bool:
    """True for a list of custom fields, ``[{"id": …, "value": …}]``, of which each is stored: in the same list, or
    under its own name, where sources put them as well."""
    if not isinstance(entries, list):
        return False
    before = known if isinstance(known, list) else []
    return all(
        entry in before
        or (
            isinstance(entry, dict)
            and "value" in entry
            and same(entry["value"], stored.get(str(entry.get("id")), _ABSENT))
        )
        for entry in entries
    )


def same(one: Any, other: Any) -> bool:
    """Equal, or equal as text: vendors return a number that was written as a string, and the reverse."""
    if one == other:
        return True
    scalar = isinstance(one, str | int | float) and isinstance(other, str | int | float)
    return scalar and str(one) == str(other)
