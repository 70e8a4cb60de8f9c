"""How many verdicts there were, by the kind of place a text came from and by what became of it: in the database, so
that every gateway can tell of it. Who wrote a text, or for whom, is not among it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock
from typing import Literal

import psycopg
import structlog

from circuit_script.db.pool import Pool
from circuit_script.judgment.verdict import Action
from circuit_script.tasks import end

log = structlog.get_logger()

Source = Literal["record", "prompt", "tool", "answer", "api"]
SOURCES: tuple[Source, ...] = ("record", "prompt", "tool", "answer", "api")
EVERY = 5.0  # seconds between two tellings
PATIENCE = 3.0  # seconds that one may take

_COUNT = """
    INSERT INTO circuit.verdicts AS v (source, action, n)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[]) ORDER BY 1, 2
    ON CONFLICT (day, source, action) DO UPDATE SET n = v.n + excluded.n
"""


class VerdictCounts:
    """Counts in memory, for threads, too, and written now and then."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, source: Source, action: Action) -> None:
        with self._lock:
            self._counts[source, str(action)] += 1

    async def flush(self, pool: Pool) -> None:
        """Write what was counted; what cannot be written now is kept for the next time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        sources, actions = zip(*counts, strict=True)
        written = False
        try:
            async with asyncio.timeout(PATIENCE), pool.connection(timeout=PATIENCE) as connection:
                await connection.execute(_COUNT.encode(), [list(sources), list(actions), list(counts.values())])
            written = True
        except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
            log.warning("verdicts.database", error=repr(error), next="they are counted later")
        finally:
            if not written:
                with self._lock:
                    self._counts.update(counts)

    @asynccontextmanager
    async def told(self, pool: Pool) -> AsyncIterator[None]:
        """Write what is counted meanwhile, and the last of it at the end."""
        task = asyncio.create_task(self._tell(pool), name="verdicts")
        try:
            yield
        finally:
            await end([task])
            await self.flush(pool)

    async def _tell(self, pool: Pool) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.flush(pool)
