"""Mixed leads that an old Flask service answers through our door, each compared with what ours would have written,
while workers are killed; and the same with a mistake of one point planted in ours.

    python -m benchmarks.release --only mirror
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuit_script.db.embedded import EmbeddedPostgres
from tests.acceptance.test_cutover import PLANTED, Migration, is_planted, is_refused, migrating
from tests.servers import Server, embedded

LEADS, MORE, KILLS = 1000, 30_000, 3
QUICK = 300, 1_000, 1
PATIENCE = 900.0


def measure(quick: bool) -> Mapping[str, Any]:
    """The share of leads that both scored alike, in percent; how many planted differences were found; what the door
    forwarded in a second, and that none of it was lost or acted on twice."""
    leads, more, kills = QUICK if quick else (LEADS, MORE, KILLS)
    with _server() as server:
        with migrating(server, PLANTED) as migration:
            migration.send_all(range(leads))
            planted = sum(map(is_planted, range(leads)))
            found = migration.compared(PATIENCE)["different"]
        with migrating(server) as migration:
            _, first = _sent(migration, range(leads), 0)
            rate, report = _sent(migration, range(100_000, 100_000 + more), kills)
            answered = sum(not is_refused(number) for number in (*range(leads), *range(100_000, 100_000 + more)))
            return {
                "mirror_parity_pct": round(100 * first["parity"], 3),
                "leads": leads,
                "planted": planted,
                "planted_found": found,
                "under_load": {
                    "parity_pct": round(100 * report["parity"], 3),
                    "deliveries": more,
                    "per_second": round(rate),
                    "workers_killed": kills,
                    "not_compared": answered - report["compared"],
                    "written_by_ours": len(migration.kept_by_ours()),
                },
            }


def _sent(migration: Migration, numbers: range, kills: int) -> tuple[float, dict[str, Any]]:
    """Deliveries in a second, and the report once all of them are compared."""
    began, part = time.monotonic(), len(numbers) // (kills + 1)
    for turn in range(kills + 1):
        last = turn == kills
        migration.send_all(numbers[turn * part :] if last else numbers[turn * part : (turn + 1) * part])
        if not last:
            migration.platform.one("worker").kill()
    took = time.monotonic() - began
    return len(numbers) / took, migration.compared(PATIENCE)


@contextmanager
def _server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as place:
        Path(place).chmod(0o755)
        try:
            yield embedded(Path(place))
        finally:
            asyncio.run(EmbeddedPostgres(Path(place)).stop())
