"""Pauses: what a person has stopped for now. Nothing new of it starts, and what waits of it stays where it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from circuit_script.db.pool import Connection

CHANNEL = "circuit_controls"
FRESH = 0.9  # seconds for which a worker trusts what it has read
EVERYTHING = "everything"

Kind = Literal["everything", "trigger", "tenant", "connector", "record"]

PAUSE = """
INSERT INTO circuit.pauses AS p (kind, value, tenant, reason, by_whom) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (kind, value, tenant) DO UPDATE SET reason = excluded.reason, by_whom = excluded.by_whom, at = now()
RETURNING id
"""
RESUME = "DELETE FROM circuit.pauses WHERE kind = %s AND value = %s AND tenant IS NOT DISTINCT FROM %s"
LIST = "SELECT id, kind, value, tenant, reason, by_whom, at FROM circuit.pauses ORDER BY id"


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause. ``value`` names what is paused (empty for everything); ``tenant`` bounds it to one tenant."""

    id: int
    kind: Kind
    value: str
    tenant: str | None
    reason: str
    by: str
    at: datetime

    @property
    def shown(self) -> str:
        """What is paused, in words."""
        return shown(self.kind, self.value, self.tenant)


def shown(kind: str, value: str, tenant: str | None) -> str:
    """What is meant, in words: "trigger score of tenant acme"."""
    what = EVERYTHING if kind == EVERYTHING else f"{kind} {value}"
    return f"{what} of tenant {tenant}" if tenant is not None and kind != "tenant" else what


async def pause(
    connection: Connection, kind: Kind, value: str, *, tenant: str | None = None, reason: str = "", by: str
) -> int:
    """Stop it until ``resume``; its id. What is paused already keeps its id and gets the new reason."""
    async with connection.transaction():
        row = await (await connection.execute(PAUSE, [kind, value, tenant, reason, by])).fetchone()
        await connection.execute(f"NOTIFY {CHANNEL}")
    assert row is not None
    return int(row[0])


async def resume(connection: Connection, kind: Kind, value: str, *, tenant: str | None = None) -> int:
    """Let it go on; how many pauses that ended (0 where it was not paused)."""
    async with connection.transaction():
        cursor = await connection.execute(RESUME, [kind, value, tenant])
        await connection.execute(f"NOTIFY {CHANNEL}")
    return cursor.rowcount


async def read_pauses(connection: Connection) -> list[Pause]:
    """All that is paused, the oldest first."""
    return [Pause(*row) for row in await (await connection.execute(LIST)).fetchall()]


class Pauses:
    """What one worker knows of pauses. It reads them at most once a second, or when told that they changed.

    ``triggers`` are the names paused for every tenant, ``tenant_triggers`` those of one: (name, tenant). ``records``
    are (tenant, id), ``connectors`` (name, tenant); there a tenant of None is every tenant. ``changed`` counts changes.
    """

    def __init__(self) -> None:
        self.changed = 0
        self._read: Sequence[Pause] = ()
        self._due = 0.0
        self._set(())

    def __bool__(self) -> bool:
        return bool(self._read)

    def expire(self) -> None:
        """Somebody said that they changed."""
        self._due = 0.0

    async def refresh(self, connection: Connection) -> bool:
        """Read them, unless that was done just now; whether they are others than before."""
        moment = time.monotonic()
        if moment < self._due:
            return False
        self._due = moment + FRESH
        found = await read_pauses(connection)
        if [each.id for each in found] == [each.id for each in self._read]:
            return False
        self._set(found)
        self.changed += 1
        return True

    def _set(self, found: Sequence[Pause]) -> None:
        self._read = found
        self.everything = any(each.kind == EVERYTHING for each in found)
        self.tenants = frozenset(each.value for each in found if each.kind == "tenant")
        self.triggers = frozenset(each.value for each in _of(found, "trigger") if each.tenant is None)
        self.tenant_triggers = frozenset((each.value, each.tenant) for each in _of(found, "trigger") if each.tenant)
        self.records = frozenset((each.tenant, each.value) for each in _of(found, "record"))
        self.connectors = frozenset((each.value, each.tenant) for each in _of(found, "connector"))

    def holds(self, trigger: str, tenant: str) -> bool:
        """Whether nothing of this trigger may start for this tenant."""
        return bool(self._read) and (
            self.everything
            or tenant in self.tenants
            or trigger in self.triggers
            or (trigger, tenant) in self.tenant_triggers
        )

    def holds_record(self, tenant: str, record: str) -> bool:
        """Whether this record is paused by itself."""
        return bool(self.records) and ((tenant, record) in self.records or (None, record) in self.records)


def _of(found: Iterable[Pause], kind: str) -> list[Pause]:
    return [each for each in found if each.kind == kind]
