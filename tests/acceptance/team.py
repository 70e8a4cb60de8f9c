"""Who deploys while a load runs, and what must hold of the executions of its releases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from circuit_script.config import load_settings
from circuit_script.db.pool import Connection, open_connection
from circuit_script.releases import content_hash
from circuit_script.releases.archive import pack
from circuit_script.releases.moving import Move, go_live, hosts_of, warm_up
from circuit_script.releases.store import NewRelease, ReleaseRow, put_release
from circuit_script.wiring import open_bench
from tests.acceptance.platform import Platform
from tests.acceptance.promises import TALLY
from tests.servers import until

LAST = """
SELECT coalesce(max(extract(epoch FROM started_at - %s) * 1000), 0)::float8 FROM circuit.executions
WHERE release = %s AND started_at > %s AND started_at < %s
"""
T = TypeVar("T")
# Which release wrote a row, and which one ran it by its execution, must agree.
MARKED = TALLY.replace('"event": event["id"]}', '"event": event["id"], "word": WORD}').replace(
    "\n\nclass", '\n\nWORD = "first"\n\n\nclass'
)
WRONG = """
SELECT count(*) FROM circuit.records t
JOIN circuit.events e ON e.id = (t.data ->> 'event')::bigint
JOIN circuit.outcomes o ON o.delivery = e.delivery AND o.ordinal = e.ordinal AND o.status = 'succeeded'
JOIN circuit.executions x ON x.id = o.execution
JOIN circuit.releases r ON r.id = x.release
WHERE t.object = 'Tally' AND t.data ->> 'word' <> CASE r.message WHEN '' THEN 'first' ELSE r.message END
"""


class Team:
    """Who deploys, from a folder of its own."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database, self.word = folder, database, "first"

    def do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def connected() -> T:
            connection = await open_connection(self.database)
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())

    def put(self, word: str) -> ReleaseRow:
        """A release that marks what it writes."""
        triggers = self.folder / "app" / "triggers.py"
        triggers.write_text(triggers.read_text().replace(f'"{self.word}"', f'"{word}"'))
        self.word = word

        async def kept(connection: Connection) -> ReleaseRow:
            async with open_bench(load_settings(self.folder)) as bench:
                handlers = bench.manifest.handlers
            new = NewRelease(content_hash(self.folder), pack(self.folder), handlers, None, "anna", word, "", {})
            return await put_release(connection, new)

        return self.do(kept)

    def warm(self, row: ReleaseRow, workers: int = 2) -> float:
        """How many seconds it took until every worker had it ready."""
        began = time.monotonic()
        self.do(lambda connection: warm_up(connection, row))

        def ready() -> bool:
            found = self.do(lambda connection: hosts_of(connection, row))
            return len(found) >= workers and all(each.state == "ready" for each in found)

        until(ready, f"{row.version} is ready everywhere", 30)
        return time.monotonic() - began

    def move(self, row: ReleaseRow, kind: str) -> Move:
        return self.do(lambda connection: go_live(connection, row, kind=kind, by="anna"))


def handled(platform: Platform, events: int) -> bool:
    return bool(platform.value("SELECT count(*) >= %s FROM circuit.outcomes WHERE status <> 'retry'", events))


def stale_of(team: Team, moves: Sequence[Move]) -> list[float]:
    """Of each move; where the release before has come back since, only what began until then counts."""
    found = []
    for move, after in zip(moves, [*moves[1:], None], strict=True):
        end = datetime.now(UTC) if after is None else after.at

        async def read(connection: Connection, move: Move = move, end: datetime = end) -> float:
            row = await (await connection.execute(LAST.encode(), [move.at, move.before, move.at, end])).fetchone()
            assert row is not None
            return float(row[0])

        found.append(team.do(read))
    return found
