"""What the demo's deliveries came to, read from the ledger and the CRM, beside what they must come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from circuit_script.cli.demo.traffic import Expectation
from circuit_script.db.pool import Connection

TENANT = "default"

# An event has succeeded when each of its handlers has.
_ENDS = """
    SELECT ended, count(*) FROM (
        SELECT CASE WHEN bool_or(status = 'dead') THEN 'dead' WHEN bool_or(status = 'echo') THEN 'echo'
                    ELSE 'succeeded' END AS ended
        FROM circuit.outcomes WHERE status NOT IN ('retry', 'deferred') GROUP BY delivery, ordinal
    ) each GROUP BY 1
"""
_BEST = """
    SELECT data FROM circuit.records
    WHERE tenant = %s AND object = 'Contact' AND data ? 'lpr_score'
    ORDER BY (data ->> 'lpr_score')::int DESC, data ->> 'name', id LIMIT %s
"""
_CONTACT = "SELECT data FROM circuit.records WHERE tenant = %s AND object = 'Contact' AND id = %s"
_DEAD = """
    SELECT record, attempts, reason FROM circuit.dead_letters WHERE kind = 'event' ORDER BY record
"""


@dataclass(frozen=True, slots=True)
class Count:
    """One line of the table: what came, and what must have come."""

    name: str
    found: int
    expected: int

    @property
    def right(self) -> bool:
        return self.found == self.expected


@dataclass(frozen=True, slots=True)
class Lead:
    """One scored contact as it stands in the CRM."""

    name: str
    city: str
    score: int
    grade: str
    band: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the demo shows. Delays in milliseconds from delivery to outcome."""

    counts: tuple[Count, ...]
    best: tuple[Lead, ...]
    dead: tuple[tuple[str, int, str], ...]
    alerts: int
    alerts_doubled: int
    p50_ms: float | None
    p95_ms: float | None
    seconds: float

    @property
    def right(self) -> bool:
        """Whether every number is exactly as it must be."""
        return all(count.right for count in self.counts) and bool(self.best) and not self.alerts_doubled

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right}


async def counts(
    connection: Connection, statuses: Mapping[int, int], expected: Mapping[Expectation, int], refused: int
) -> tuple[Count, ...]:
    """Answers as the vendor saw them, ends as the ledger knows them. ``refused`` is the platform's own count."""
    cursor = await connection.execute(_ENDS)
    ends: Counter[str] = Counter(dict(await cursor.fetchall()))
    wanted = Counter(expected)
    handled = wanted[Expectation.SUCCEEDS]
    broken = wanted[Expectation.RAISES] + wanted[Expectation.ENDLESS]
    echoes, duplicates = wanted[Expectation.ECHO], wanted[Expectation.DUPLICATE]
    forged, malformed = wanted[Expectation.FORGED], wanted[Expectation.MALFORMED]
    odd = sum(count for status, count in statuses.items() if status not in (200, 202, 400, 401))
    return (
        Count("sent", sum(statuses.values()), sum(wanted.values())),
        Count("received", statuses.get(202, 0), handled + broken + echoes),
        Count("duplicate", statuses.get(200, 0), duplicates),
        Count("refused: wrong signature", statuses.get(401, 0), forged),
        Count("refused: malformed", statuses.get(400, 0), malformed),
        Count("refused, as counted by the platform", refused, forged + malformed),
        Count("any other answer", odd, 0),
        Count("succeeded", ends["succeeded"], handled),
        Count("dead", ends["dead"], broken),
        Count("echo of our own write", ends["echo"], echoes),
    )


async def best_leads(connection: Connection, limit: int = 10) -> tuple[Lead, ...]:
    """The highest scores in the CRM."""
    cursor = await connection.execute(_BEST, (TENANT, limit))
    return tuple(_lead(data) for (data,) in await cursor.fetchall())


async def written(connection: Connection, contact: str) -> dict[str, Any]:
    """What the CRM of this contact shows of our writes: the score's fields and the tags."""
    cursor = await connection.execute(_CONTACT, (TENANT, contact))
    row = await cursor.fetchone()
    names = ("lpr_score", "lpr_grade", "lpr_band", "tags")
    return {name: row[0][name] for name in names if name in row[0]} if row else {}


async def dead_letters(connection: Connection) -> tuple[tuple[str, int, str], ...]:
    """(record, attempts, reason) of each event that was given up."""
    cursor = await connection.execute(_DEAD)
    return tuple((record, attempts, reason) for record, attempts, reason in await cursor.fetchall())


def _lead(data: Mapping[str, Any]) -> Lead:
    reasons = data.get("lpr_reasons") or ()
    shown = (reasons,) if isinstance(reasons, str) else tuple(map(str, reasons))
    return Lead(
        name=str(data.get("name", data.get("id", ""))),
        city=str(data.get("city", "")),
        score=int(data["lpr_score"]),
        grade=str(data.get("lpr_grade", "")),
        band=str(data.get("lpr_band", "")),
        reasons=shown,
    )
