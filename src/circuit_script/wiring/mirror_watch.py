"""The watch over a source that ours has just taken over: its errors beside those of the old service, and the way back.

Of all workers one looks at a time. The old service acts again when more of what ours handled has failed than of what
the old service was given before, by more than a tenth of a percentage point and more than chance would have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import structlog

from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import MirrorRefused
from circuit_script.events import mirror_moves
from circuit_script.events.chores import GUARDIAN, succeeded
from circuit_script.events.mirror_moves import OLD, MirrorState
from circuit_script.releases.figures import Counts
from circuit_script.releases.watch import is_worse
from circuit_script.telemetry.guardian import Finding
from circuit_script.wiring.looking import keep_looking

log = structlog.get_logger()

BY = "the watch"
PASSED = "passed"
EVERY = 5.0  # seconds between two looks of all workers together
LATE = timedelta(hours=1)


class MirrorWatch:
    """Gives a source back to its old service when ours fails more often."""

    def __init__(self, database: Pool, every: float = EVERY) -> None:
        self._database = database
        self._every = every

    async def run(self) -> None:
        """Until it is cancelled. A look that fails is tried again."""
        await keep_looking("mirror.watch", self.tick, self._every)

    async def tick(self) -> None:
        """One look, where it is due."""
        async with self._database.connection() as connection:
            found = await mirror_moves.claim_watch(connection, timedelta(seconds=self._every))
            if found is None:
                return
            state, over = found
            old = Counts(state.old_of, state.old_errors)
            for since in _windows(state):
                new = Counts(*await mirror_moves.ours_of(connection, state, since))
                if is_worse(new, old):
                    return await _back(connection, state, new, old)
            if over:
                await mirror_moves.end_watch(connection, state.source, PASSED)


def _windows(state: MirrorState) -> Iterator[datetime | None]:
    """Since ours acts, and, when that is longer, of late: two good days must not hide a bad hour."""
    yield None
    late = datetime.now(UTC) - LATE
    if state.since is not None and state.since < late:
        yield late


async def _back(connection: Connection, state: MirrorState, new: Counts, old: Counts) -> None:
    """Move it back and have the channels of alerts told; nothing where somebody has moved it meanwhile."""
    why = (
        f"{new.errors:,} of {new.executions:,} failed ({new.share:.2%}); "
        f"of the old service's {old.errors:,} of {old.executions:,} ({old.share:.2%})"
    )
    try:
        async with connection.transaction():
            moved = await mirror_moves.move(connection, state.source, OLD, by=BY, reason=why, expected=state.since)
            finding = Finding(
                f"mirror:{state.source}", "critical", f"The old service acts on {state.source} again: {why}.",
                moved.since or datetime.now(UTC), "circuit-script mirror",
            )  # fmt: skip
            await succeeded(connection, f"{GUARDIAN} mirror watch {state.source}", findings=[finding.as_row()])
    except MirrorRefused:
        return
    log.error("mirror.moved_back", source=state.source, why=why, next="circuit-script mirror")
