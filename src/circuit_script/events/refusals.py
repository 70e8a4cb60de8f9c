"""Bad requests leave a count and nothing else."""

from __future__ import annotations

from collections import Counter

from circuit_script.events.ledger import Ledger, LedgerAway, Unstorable

_COUNT = """
    INSERT INTO circuit.refusals AS r (source, reason, n)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[]) ORDER BY 1, 2
    ON CONFLICT (day, source, reason) DO UPDATE SET n = r.n + excluded.n
"""


class Refusals:
    """Counts in memory, written once a second. ``source`` and ``reason`` must come from small fixed sets."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, source: str, reason: str) -> None:
        self._counts[source, reason] += 1

    async def flush(self) -> None:
        """Write what was counted; what cannot be written now is kept for the next time."""
        if not self._counts:
            return
        counts, self._counts = self._counts, Counter()
        sources, reasons = zip(*counts, strict=True)
        try:
            await self._ledger.run(_COUNT, (list(sources), list(reasons), list(counts.values())))
        except (LedgerAway, Unstorable):
            self._counts.update(counts)
