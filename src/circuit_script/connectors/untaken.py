"""Hot leads that nobody has taken."""

from __future__ import annotations

from datetime import datetime, timedelta

from circuit_script.db.pool import Connection
from circuit_script.telemetry.alerts.look import HotLead

BACK = timedelta(hours=24)  # who is hot for longer has been told of
MOST = 100
EXAMINED = 5000

# A lead is taken when somebody is assigned to it, or when there is something of it since it became hot that came from
# us: a message, a call, an appointment, a note. It is hot while its latest score has the grade.
_UNTAKEN = f"""
WITH hot AS MATERIALIZED (
    SELECT r.tenant, r.contact, r.created_at FROM circuit.records r
    WHERE r.object = 'LeadScore' AND octet_length(r.data ->> 'grade') <= 20 AND r.data ->> 'grade' = %(grade)s
      AND r.created_at >= %(since)s AND r.contact IS NOT NULL AND NOT r.deleted
    ORDER BY r.created_at DESC LIMIT {EXAMINED}
), first AS (
    SELECT tenant, contact, min(created_at) AS since FROM hot GROUP BY 1, 2 HAVING min(created_at) <= %(until)s
)
SELECT f.tenant, f.contact, %(grade)s, f.since FROM first f
LEFT JOIN circuit.records c ON c.tenant = f.tenant AND c.object = 'Contact' AND c.id = f.contact
WHERE NOT coalesce(c.deleted, false) AND nullif(c.data ->> 'assignedTo', '') IS NULL
  AND NOT EXISTS (
    SELECT 1 FROM circuit.records l WHERE l.tenant = f.tenant AND l.contact = f.contact AND l.object = 'LeadScore'
    AND l.created_at > f.since AND l.data ->> 'grade' IS DISTINCT FROM %(grade)s)
  AND NOT EXISTS (
    SELECT 1 FROM circuit.records t WHERE t.tenant = f.tenant AND t.contact = f.contact AND t.object <> 'LeadScore'
    AND t.created_at > f.since AND coalesce(t.data ->> 'direction', '') <> 'inbound' AND NOT t.deleted)
ORDER BY f.since LIMIT {MOST}
"""


async def untaken(connection: Connection, grade: str, after: float, now: datetime) -> list[HotLead]:
    """Leads that have had that grade for ``after`` seconds and longer, the longest first."""
    values = {"grade": grade, "since": now - BACK, "until": now - timedelta(seconds=after)}
    return [HotLead(*row) for row in await (await connection.execute(_UNTAKEN.encode(), values)).fetchall()]
