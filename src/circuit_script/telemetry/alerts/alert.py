"""An alert as it is kept, and what a person may do with it. One place knows the table's columns for readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection

Severity = Literal["notice", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")
MOST = 500  # alerts that are listed

_SEEN_BY_ALL = """id, key, rule, severity, tenant, part_of, what, hits, handlers, next, link, size, since, last,
    resolved, acknowledged_by, acknowledged_at, silenced_by, silenced_until"""
# A tenant's part of what is shown as a whole is not shown again.
_OF_ALL = f"""
SELECT {_SEEN_BY_ALL}, told FROM circuit.alerts
WHERE part_of IS NULL AND (NOT %(open_only)s OR resolved IS NULL)
ORDER BY resolved IS NOT NULL, array_position(ARRAY['critical', 'warning', 'notice'], severity), id DESC
LIMIT %(limit)s
"""
_OF_TENANT = f"""
SELECT {_SEEN_BY_ALL} FROM circuit.alerts
WHERE tenant = %(tenant)s AND (NOT %(open_only)s OR resolved IS NULL)
ORDER BY resolved IS NOT NULL, array_position(ARRAY['critical', 'warning', 'notice'], severity), id DESC
LIMIT %(limit)s
"""
# Who answers for the whole answers for its parts.
_MEANT = """resolved IS NULL AND (key = %(key)s OR part_of = %(key)s)
      AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"""
_ACKNOWLEDGE = f"""
UPDATE circuit.alerts SET acknowledged_by = %(by)s, acknowledged_at = now()
WHERE {_MEANT} AND acknowledged_by IS NULL
"""
_IS_OPEN = f"SELECT EXISTS (SELECT 1 FROM circuit.alerts WHERE {_MEANT})"
_SILENCE = f"""
UPDATE circuit.alerts SET silenced_by = %(by)s, silenced_until = %(until)s WHERE {_MEANT}
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """Whom an alert hits: a tenant, and its figures in words (``12 of 40``)."""

    tenant: str
    said: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel was told last of an alert: its severity and size then, and when. ``held`` is since when it was to
    be told and was not, as it is night; ``over`` when it was told that it is over."""

    at: datetime | None = None
    severity: Severity = "notice"
    size: float = 0.0
    held: datetime | None = None
    over: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is, or was, wrong.

    ``what`` says it in one sentence, ``next`` is the next act (a command), ``link`` the dashboard's path. ``tenant`` is
    None where it is about several or none; ``hits`` says which. ``told`` is by channel, and empty for who sees only a
    tenant's. ``resolved`` is None while it goes on.
    """

    id: int
    key: str
    rule: str
    severity: Severity
    tenant: str | None
    part_of: str | None
    what: str
    hits: tuple[Hit, ...]
    handlers: tuple[str, ...]
    next: str
    link: str
    size: float
    since: datetime
    last: datetime
    resolved: datetime | None = None
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    silenced_by: str | None = None
    silenced_until: datetime | None = None
    told: Mapping[str, Told] = field(default_factory=dict)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Alert:
        return cls(
            **{
                **row,
                "hits": tuple(Hit(tenant, said) for tenant, said in row["hits"]),
                "handlers": tuple(row["handlers"]),
                "told": {channel: _told(each) for channel, each in row.get("told", {}).items()},
            }
        )


async def alerts_of(
    connection: Connection, tenant: str | None, *, open_only: bool = False, limit: int = MOST
) -> list[Alert]:
    """Alerts, the open and worst first: those of one tenant (also in `tenant_reading`), or for None of all, where a
    tenant's part of something larger is left out while that is open."""
    statement = _OF_ALL if tenant is None else _OF_TENANT
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), {"tenant": tenant, "open_only": open_only, "limit": limit})
        return [Alert.of_row(row) for row in await cursor.fetchall()]


async def acknowledge(connection: Connection, key: str, by: str, *, tenant: str | None = None) -> bool:
    """Somebody looks after the open alert of that key, and no further step is taken; False where there is none. With
    ``tenant`` only an alert of that tenant is meant. Who was first stays."""
    values = {"key": key, "by": by, "tenant": tenant}
    updated = (await connection.execute(_ACKNOWLEDGE.encode(), values)).rowcount
    if updated:
        return True
    row = await (await connection.execute(_IS_OPEN.encode(), values)).fetchone()
    return bool(row and row[0])


async def silence(connection: Connection, key: str, until: datetime, by: str, *, tenant: str | None = None) -> bool:
    """Nobody is told of the open alert of that key until then, also when it ends and comes again; False where there is
    none. A moment that is past ends a silence."""
    values = {"key": key, "by": by, "until": until, "tenant": tenant}
    return bool((await connection.execute(_SILENCE.encode(), values)).rowcount)


def _told(row: Mapping[str, Any]) -> Told:
    return Told(
        at=_moment(row.get("at")),
        severity=row.get("severity", "notice"),
        size=row.get("size", 0.0),
        held=_moment(row.get("held")),
        over=_moment(row.get("over")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
