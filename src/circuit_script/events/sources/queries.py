"""Reading the query of a question."""

from __future__ import annotations

from urllib.parse import parse_qsl

MAX_QUERY = 4096  # bytes


def only(query: bytes, name: str) -> str:
    """The one value of a name; empty where there is none, or more than one."""
    if len(query) > MAX_QUERY:
        return ""
    found = [value for each, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if each == name]
    return found[0] if len(found) == 1 else ""
