"""Versions of records, between the broker and the child: what is read carries them, an update may ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from circuit_script.connectors.connector import Fields, Stored
from circuit_script.errors import RequestRefused
from circuit_script.execution.outcome import VERSION


def versions_of(op: str, said: Any) -> dict[str, int] | None:
    """The versions, by id, that alone a write is for. Raises RequestRefused."""
    if said is None:
        return None
    if op != "update":
        raise RequestRefused(f"{op} takes no if_version: only update does.")
    return {str(key): int(version) for key, version in said.items()}


def shown(rows: Sequence[Fields | None], stored: Iterable[Fields | None]) -> list[Fields | None]:
    """Rows with the version of what is ``stored`` of them; 0 where nothing is."""
    versions = {str(row["id"]): row.version for row in stored if isinstance(row, Stored)}
    return [None if row is None else {**row, VERSION: versions.get(str(row["id"]), 0)} for row in rows]
