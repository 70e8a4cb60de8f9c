"""Leads and their scores, as agents keep them in the built-in CRM: one `LeadScore` record for each scoring.

What stands in such a record is the author's: a reader believes nothing of it. Ids rise with time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg.rows import dict_row

from circuit_script.db.pool import Connection

DEEPEST = 5_000  # scores that a list looks at, the newest
MOST = 200  # scores of one lead that are told
LONGEST = 300  # characters of a name, a grade, a reason

# A lead once, by its latest score; of a contact the fields by which people know it.
_LIST = f"""
WITH newest AS MATERIALIZED (
    SELECT s.id, s.contact, s.data, s.created_at FROM circuit.records s
    WHERE s.tenant = %(tenant)s AND s.object = 'LeadScore' AND NOT s.deleted AND s.contact IS NOT NULL
    ORDER BY s.id DESC LIMIT {DEEPEST}
), latest AS (
    SELECT DISTINCT ON (n.contact) n.id, n.contact, n.data, n.created_at,
           CASE WHEN jsonb_typeof(n.data -> 'total') = 'number' THEN (n.data -> 'total')::numeric END AS total
    FROM newest n ORDER BY n.contact, n.id DESC
), named AS (
    SELECT l.*, c.data AS person FROM latest l
    LEFT JOIN circuit.records c
      ON c.tenant = %(tenant)s AND c.object = 'Contact' AND c.id = l.contact AND NOT c.deleted
), fitting AS (
    SELECT n.* FROM named n
    WHERE (%(grade)s::text IS NULL OR n.data ->> 'grade' = %(grade)s)
      AND (%(band)s::text IS NULL OR n.data ->> 'band' = %(band)s)
      AND (%(text)s::text IS NULL OR n.contact = %(text)s OR strpos(lower(concat_ws(' ', n.contact,
           n.person ->> 'firstName', n.person ->> 'lastName', n.person ->> 'name', n.person ->> 'email',
           n.person ->> 'companyName')), lower(%(text)s)) > 0)
)
SELECT f.id, f.contact AS lead, f.data, f.created_at, f.person, count(*) OVER () AS of,
       (SELECT count(*) FROM newest) AS seen
FROM fitting f
ORDER BY CASE WHEN %(by_score)s THEN f.total END DESC NULLS LAST, f.id DESC
LIMIT %(limit)s OFFSET %(offset)s
"""
_BANDS = f"""
SELECT n.grade, count(*) FROM (
    SELECT DISTINCT ON (s.contact) left(s.data ->> 'grade', 40) AS grade FROM (
        SELECT s.id, s.contact, s.data FROM circuit.records s
        WHERE s.tenant = %(tenant)s AND s.object = 'LeadScore' AND NOT s.deleted AND s.contact IS NOT NULL
        ORDER BY s.id DESC LIMIT {DEEPEST}) s
    ORDER BY s.contact, s.id DESC) n
GROUP BY 1 ORDER BY 1 NULLS LAST LIMIT 20
"""
_SCORES = f"""
SELECT s.id, s.contact AS lead, s.data, s.created_at FROM circuit.records s
WHERE s.tenant = %(tenant)s AND s.object = 'LeadScore' AND s.contact = %(lead)s AND NOT s.deleted
ORDER BY s.id DESC LIMIT {MOST}
"""
_PERSON = """
SELECT data FROM circuit.records
WHERE tenant = %(tenant)s AND object = 'Contact' AND id = %(lead)s AND NOT deleted
"""


@dataclass(frozen=True, slots=True)
class LeadQuery:
    """Which leads: ``text`` is in a name, an address, a company, or is the id. The hottest first, or the newest."""

    tenant: str
    text: str | None = None
    grade: str | None = None
    band: str | None = None
    by_score: bool = True
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """One scoring of one lead. Numbers are None where the record says none; ``parts`` are points by their names."""

    id: str
    lead: str
    at: datetime
    total: float | None = None
    fit: float | None = None
    intent: float | None = None
    timing: float | None = None
    grade: str = ""
    band: str = ""
    route: str = ""
    profile: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    negative: float | None = None
    reasons: Sequence[str] = ()
    next_change_at: datetime | None = None
    signals: Any = None


@dataclass(frozen=True, slots=True)
class Lead:
    """One lead by its latest score. ``person`` are the contact's fields, if the contact is known."""

    score: Score
    person: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """What people call it; its id where nothing better is known."""
        said = self.person or {}
        full = " ".join(str(said[each]) for each in ("firstName", "lastName") if said.get(each))
        return (full or str(said.get("name") or said.get("email") or self.score.lead))[:LONGEST]


@dataclass(frozen=True, slots=True)
class Leads:
    """A page of them. ``of`` is how many fit; ``bounded``: there are older scores at which nobody looked."""

    found: Sequence[Lead]
    of: int
    bounded: bool


async def list_leads(connection: Connection, query: LeadQuery) -> Leads:
    """Those that fit, among the leads of the DEEPEST newest scores of the tenant."""
    values = {
        "tenant": query.tenant,
        "text": query.text,
        "grade": query.grade,
        "band": query.band,
        "by_score": query.by_score,
        "limit": query.limit,
        "offset": query.offset,
    }
    found = await _rows(connection, _LIST, values)
    of, seen = (found[0]["of"], found[0]["seen"]) if found else (0, 0)
    return Leads([Lead(_score(row), row["person"]) for row in found], of, seen >= DEEPEST)


async def grades_of(connection: Connection, tenant: str) -> list[tuple[str, int]]:
    """How many leads have which grade, among the same leads."""
    found = await (await connection.execute(_BANDS.encode(), {"tenant": tenant})).fetchall()
    return [(grade or "", n) for grade, n in found]


async def scores_of(connection: Connection, tenant: str, lead: str) -> tuple[list[Score], Mapping[str, Any] | None]:
    """The newest MOST scores of one lead, the newest first; and the contact's fields, if it is known."""
    values = {"tenant": tenant, "lead": lead}
    scores = [_score(row) for row in await _rows(connection, _SCORES, values)]
    person = await _rows(connection, _PERSON, values)
    return scores, person[0]["data"] if person else None


def _score(row: Mapping[str, Any]) -> Score:
    data = row["data"]
    parts = data.get("parts")
    reasons = data.get("reasons")
    return Score(
        id=row["id"],
        lead=row["lead"],
        at=_moment(data.get("at")) or row["created_at"],
        total=_number(data.get("total")),
        fit=_number(data.get("fit")),
        intent=_number(data.get("intent")),
        timing=_number(data.get("timing")),
        grade=_word(data.get("grade")),
        band=_word(data.get("band")),
        route=_word(data.get("route")),
        profile=_word(data.get("profile")),
        parts={
            name[:LONGEST]: points
            for name, value in list(parts.items() if isinstance(parts, dict) else ())[:50]
            if (points := _number(value)) is not None
        },
        negative=_number(data.get("negative")),
        reasons=[_word(each) for each in (reasons if isinstance(reasons, list) else [reasons])[:20] if each],
        next_change_at=_moment(data.get("next_change_at")),
        signals=data.get("signals"),
    )


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if known else None  # type: ignore[arg-type]  # a number, as was just asked


def _word(value: object) -> str:
    return "" if value is None else str(value)[:LONGEST]


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value)[:40])
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


async def _rows(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()
