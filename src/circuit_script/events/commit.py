"""Commits what became of a batch, however long that takes, and says what is left to do of its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from circuit_script.clock import now
from circuit_script.db.pool import Pool
from circuit_script.effects.settle import Settled, Settlement, Settler, is_transient
from circuit_script.errors import Fenced
from circuit_script.events.backlog import Queued
from circuit_script.events.finalizers import Finalizers, finalized
from circuit_script.events.reader import QueueReader
from circuit_script.events.verdicts import WAITING

log = structlog.get_logger()

RowKey = tuple[int, int]
Waits = dict[RowKey, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Again:
    """What is left to do of a batch: ``parts`` (indices) run apart, ``waits`` maps a row to (wait, hold) seconds.

    Rows that are in neither have left the queue, or belong to another worker. ``parked``: nothing was executed, and
    nothing of their tenant will be for so many seconds.
    """

    parts: Sequence[Sequence[int]] = ()
    waits: Mapping[RowKey, tuple[float, float]] = field(default_factory=dict)
    fenced: bool = False
    parked: float | None = None


class Committer:
    """Commits settlements. ``sent`` is called when one has effects for the courier; jobs that end get their
    ``finalizers``."""

    def __init__(
        self, database: Pool, settler: Settler, sent: Callable[[], None], finalizers: Finalizers | None = None
    ) -> None:
        self._finalizers = finalizers or {}
        self._database = database
        self._settler = settler
        self._sent = sent

    async def settle(self, settlement: Settlement, *, away: Callable[[], None] = lambda: None) -> None:
        """Return once it is committed; ``away`` is called each time that the database could not say.

        A lost connection leaves it open whether the commit happened; then it is tried again, and who finds the rows
        gone knows that it had. Raises Fenced when it does not count, and psycopg.Error when the database refuses it.
        """
        settlement = finalized(settlement, self._finalizers)
        delay, doubtful = 0.1, False
        while True:
            try:
                await self._settler.settle(settlement)
            except Fenced as fenced:
                if not doubtful:
                    log.warning("settle.fenced", execution=str(settlement.execution), reason=str(fenced))
                raise
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not is_transient(error):
                    log.error("settle.refused", execution=str(settlement.execution), error=refusal(error))
                    raise
                log.warning("settle.database", error=str(error), next="trying again")
                away()
                doubtful = True
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)
            else:
                break
        if self._settler.leaves(settlement):
            self._sent()

    async def reread(self, rows: Sequence[Queued]) -> Again:
        """After a fence: rows that still wait run again if their lane is still ours (the backlog knows)."""
        every = [each for row in rows for each in (row, *row.absorbed)]
        async with self._database.connection() as connection:
            still = await QueueReader().again(connection, [row.id for row in every])
        waits: Waits = {}
        for row in every:
            found = still.get((row.id, row.handler))
            if found is not None:
                row.attempts, row.not_before, row.held_until = found.attempts, found.not_before, found.held_until
                wait, hold = left(row)
                waits[row.id, row.handler] = (max(wait, 0.05), max(hold, 1.0))
        return Again(waits=waits, fenced=True)


def refusal(error: psycopg.Error) -> str:
    """Why an outcome cannot be stored, in one line."""
    return f"the database refused the outcome: {error.diag.message_primary or error}"


def put_off(rows: Sequence[Queued], settled: Sequence[Settled]) -> list[Queued]:
    """The rows that wait for another attempt, brought up to date with what was committed of them."""
    waiting = []
    for row, each in zip(rows, settled, strict=False):
        if each.status in WAITING:
            row.attempts, row.not_before, row.held_until = each.attempts, each.not_before, each.held_until
            row.journal.clear()  # what belongs to one record stands in the table; the rest was for this batch
            row.recovered, row.splits = True, 0
            waiting.append(row)
    return waiting


def waits_of(rows: Sequence[Queued]) -> Waits:
    """How long each of these rows waits, and for how long it holds its order key."""
    return {(row.id, row.handler): left(row) for row in rows}


def left(row: Queued) -> tuple[float, float]:
    """Seconds until the row's next attempt, and for which it holds its order key."""
    moment = now()
    wait = (row.not_before - moment).total_seconds() if row.not_before else 0.0
    hold = (row.held_until - moment).total_seconds() if row.held_until else 0.0
    return max(wait, 0.0), max(hold, 0.0)
