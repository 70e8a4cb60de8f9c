"""Each worker looks whether a release that has just gone live is to be taken back, one of them at a time."""

from __future__ import annotations

import structlog

from circuit_script.db.pool import Pool
from circuit_script.releases import watch
from circuit_script.wiring.looking import keep_looking

log = structlog.get_logger()

EVERY = 2.0  # seconds between two looks of all workers together


class ReleaseWatch:
    """Takes back what fails more often than the release before."""

    def __init__(self, database: Pool, every: float = EVERY) -> None:
        self._database = database
        self._every = every

    async def run(self) -> None:
        """Until it is cancelled. A look that fails is tried again."""
        await keep_looking("release.watch", self.tick, self._every)

    async def tick(self) -> None:
        """One look, where it is due."""
        async with self._database.connection() as connection:
            watching = await watch.claim(connection, self._every)
            if watching is None:
                return
            move = await watch.look(connection, watching)
        if move is not None:
            log.error("release.rolled_back", release=watching.release, live=move.release, why=move.reason)
