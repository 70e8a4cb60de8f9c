"""Verdicts on texts, for Prometheus. It crosses tenants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from circuit_script.db.pool import Connection
from circuit_script.judgment.counts import SOURCES
from circuit_script.judgment.verdict import Action
from circuit_script.telemetry.metrics import Figures, add

METRIC = "judgment_verdicts_total"
_COUNTED = "SELECT day, source, action, n FROM circuit.verdicts WHERE day >= current_date - 1"
Key = tuple[date, str, str]


class VerdictFigures:
    """Counts verdicts from the first look on. All begin at 0, so that the first attack is seen to come."""

    def __init__(self) -> None:
        self._before: dict[Key, int] | None = None
        self._totals: Figures = {}
        for source in SOURCES:
            for action in Action:
                add(self._totals, METRIC, (source, str(action)), 0)

    async def read(self, connection: Connection) -> Figures:
        """The figures. Raises psycopg.Error."""
        rows = await (await connection.execute(_COUNTED.encode(), prepare=False)).fetchall()
        found = {(day, source, action): int(n) for day, source, action, n in rows}
        for (source, action), more in self._grown(found):
            add(self._totals, METRIC, (source, action), more)
        self._before = found
        return self._totals

    def _grown(self, found: dict[Key, int]) -> Iterator[tuple[tuple[str, str], int]]:
        if self._before is not None:
            for (day, source, action), n in found.items():
                yield (source, action), max(0, n - self._before.get((day, source, action), 0))
