"""Whether a record stands as a write would have it: how a write that got no answer is found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.connectors.values import moment


def stands(row: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """True when each of the fields has that value in the row. Nothing, empty text and an empty list are alike, so are
    a number and its text, and moments of different time zones."""
    return all(_alike(row.get(name), value) for name, value in fields.items() if name != "id")


def _alike(one: Any, other: Any) -> bool:
    if one in (None, "", []) or other in (None, "", []):
        return one in (None, "", []) and other in (None, "", [])
    if isinstance(one, str) and isinstance(other, str) and one != other:
        found = moment(one)
        return found is not None and found == moment(other)
    if isinstance(one, list | tuple) or isinstance(other, list | tuple):
        return list(one) == list(other) if isinstance(one, list | tuple) and isinstance(other, list | tuple) else False
    return bool(one == other) or (not isinstance(one, bool) and str(one) == str(other))
