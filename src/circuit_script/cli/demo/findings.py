"""What the demo's deliveries came to, as the ledger and the CRM know it, beside what they must come to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circuit_script.cli.demo.traffic import BAD, Plan
from circuit_script.db.pool import Connection

BEST = 10

# An event has succeeded when each of its handlers has.
_ENDS = """
    SELECT ended, count(*) FROM (
        SELECT CASE WHEN bool_or(status = 'dead') THEN 'dead' WHEN bool_or(status = 'echo') THEN 'echo'
                    ELSE 'succeeded' END AS ended
        FROM circuit.outcomes WHERE status NOT IN ('retry', 'deferred') GROUP BY delivery, ordinal
    ) each GROUP BY 1
"""
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
    """Everything that the demo shows. Delays in milliseconds from delivery to outcome.

    ``writes`` are those that reached the CRM; of its traffic so many requests were ``checked`` against the vendor's
    published contract, where that is at hand, and ``violations`` are what did not fit it.
    """

    counts: tuple[Count, ...]
    best: tuple[Lead, ...]
    dead: tuple[tuple[str, int, str], ...]
    alerts: int
    alerts_doubled: int
    writes: int
    violations: tuple[str, ...]
    checked: int
    p50_ms: float | None
    p95_ms: float | None
    seconds: float

    @property
    def right(self) -> bool:
        """Whether every number is exactly as it must be."""
        whole = bool(self.best) and not self.alerts_doubled and not self.violations
        return whole and all(count.right for count in self.counts)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right}


async def counts(
    connection: Connection, plan: Plan, report: Mapping[str, Any], statuses: Mapping[int, int], refused: int
) -> tuple[Count, ...]:
    """Ends as the ledger knows them, beside what was caused. ``report`` is the CRM's own, ``statuses`` are what
    strangers were answered, ``refused`` is the platform's own count."""
    cursor = await connection.execute(_ENDS)
    ends: Counter[str] = Counter(dict(await cursor.fetchall()))
    answers = Counter({int(status): count for status, count in report["answers"].items()})
    told = report["people"] + report["echoes"]
    twice = answers.total() - told
    seen = answers + Counter(statuses)
    forged, malformed = plan.forged, plan.malformed
    odd = sum(count for status, count in seen.items() if status not in (200, 202, 400, 401))
    return (
        Count("sent", seen.total(), plan.people + report["echoes"] + twice + forged + malformed),
        Count("received", seen[202], plan.people + report["echoes"]),
        Count("duplicate", seen[200], twice),
        Count("refused: wrong signature", seen[401], forged),
        Count("refused: malformed", seen[400], malformed),
        Count("refused, as counted by the platform", refused, forged + malformed),
        Count("any other answer", odd, 0),
        Count("succeeded", ends["succeeded"], plan.people - len(BAD)),
        Count("dead", ends["dead"], len(BAD)),
        Count("echo of our own write", ends["echo"], report["echoes"]),
        Count("requests that GoHighLevel slowed down", report["slowed_down"], 0),
        Count("requests that GoHighLevel refused", report["refused"], 0),
    )


def best_leads(contacts: Sequence[Mapping[str, Any]]) -> tuple[Lead, ...]:
    """The highest scores in the CRM."""
    scored = [each for each in contacts if each.get("lpr_score") is not None]
    scored.sort(key=lambda each: (-int(each["lpr_score"]), str(each.get("contactName")), each["id"]))
    return tuple(_lead(each) for each in scored[:BEST])


async def dead_letters(
    connection: Connection, contacts: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, int, str], ...]:
    """(contact, attempts, reason) of each event that was given up."""
    names = {str(each["id"]): f"{each.get('contactName')} ({each['id']})" for each in contacts}
    cursor = await connection.execute(_DEAD)
    rows = await cursor.fetchall()
    return tuple(sorted((names.get(record) or str(record), attempts, reason) for record, attempts, reason in rows))


def _lead(data: Mapping[str, Any]) -> Lead:
    return Lead(
        name=str(data.get("contactName") or data["id"]),
        city=str(data.get("city") or ""),
        score=int(data["lpr_score"]),
        grade=str(data.get("lpr_grade", "")),
        band=str(data.get("lpr_band", "")),
        reasons=tuple(json.loads(data.get("lpr_reasons") or "[]")),
    )
