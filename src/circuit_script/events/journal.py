"""The journal of one batch: replies of calls, kept per record and found again when the record runs again."""

from __future__ import annotations

from collections.abc import Sequence

from circuit_script.db.pool import Pool
from circuit_script.events.backlog import Queued

KEEP = """
INSERT INTO circuit.journal (event, handler, key, tenant, reply) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
# Kept while the event waits, or its dead letter does: whoever retries that pays nothing twice. And for some days, an
# hour at least: a dry replay answers from it.
SWEEP = """
DELETE FROM circuit.journal WHERE ctid = ANY(ARRAY(
    SELECT j.ctid FROM circuit.journal j
    WHERE at < now() - greatest(make_interval(days => %(replies)s), interval '1 hour')
    AND NOT EXISTS (SELECT 1 FROM circuit.queue q WHERE q.id = j.event AND q.handler = j.handler)
    AND NOT EXISTS (
        SELECT 1 FROM circuit.dead_letters d
        WHERE d.event_id = j.event AND d.handler = j.handler AND d.status = 'open')
    ORDER BY j.event LIMIT %(chunk)s))
"""


class BatchJournal:
    """A reply that belongs to one record is stored before the handler sees it; one that belongs to the whole
    batch is kept in memory, for its bisection."""

    def __init__(self, rows: Sequence[Queued], pool: Pool) -> None:
        self._rows = rows
        self._rest = rows
        self._pool = pool

    def forget(self, upto: int) -> None:
        """The records up to here are settled: what is asked for the whole batch is asked for the others."""
        self._rest = self._rows[upto + 1 :]

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        rows = self._rest if owner is None else (self._rows[owner],)
        return next((row.journal[key] for row in rows if key in row.journal), None)

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        if owner is None:
            for row in self._rest:
                row.journal[key] = reply
            return
        row = self._rows[owner]
        row.journal[key] = reply
        async with self._pool.connection() as connection:
            await connection.execute(KEEP, [row.id, row.handler, key, row.tenant, reply])
