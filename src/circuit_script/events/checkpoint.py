"""Checkpoints of a running execution: what its handler has finished is committed while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import psycopg

from circuit_script.errors import Fenced, RequestRefused, VersionConflict
from circuit_script.events.coalesce import forget
from circuit_script.events.commit import Committer, put_off, refusal
from circuit_script.events.conclude import Batch
from circuit_script.events.journal import BatchJournal
from circuit_script.execution.outcome import Hint, Outcome
from circuit_script.failpoints import areach


class Checkpoints:
    """The checkpoints of one batch. ``stalled`` says that one of them had to wait for the database."""

    def __init__(self, batch: Batch, journal: BatchJournal, committer: Committer) -> None:
        self.stalled = False
        self._batch = batch
        self._journal = journal
        self._committer = committer
        self._fenced = False
        self._execution: asyncio.Future[Outcome] | None = None
        self._commit: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def watch(self, execution: Awaitable[Outcome]) -> Outcome | None:
        """The execution's outcome, once no checkpoint of it is under way. None when a checkpoint found that another
        worker has the lanes by now: then the execution is ended."""
        self._execution = asyncio.ensure_future(execution)
        outcome: Outcome | None = None
        try:
            outcome = await self._execution
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._fenced or (task is not None and task.cancelling()):
                raise
        finally:
            self._execution = None
        if self._commit is not None:
            await asyncio.gather(self._commit, return_exceptions=True)
            self._commit = None  # one that failed holds us by its traceback
        return None if self._fenced else outcome

    async def take(
        self, upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None], hints: Mapping[int, Hint]
    ) -> None:
        """Commit the records up to ``upto``; what is committed already stays as it is. Raises RequestRefused."""
        async with self._turn:
            if self._batch.terms.together:
                raise no_part_of_it()
            if upto < self._batch.settled:
                return
            # A limit that is crossed meanwhile ends the request, not the commit.
            self._commit = asyncio.create_task(self._settle(upto, errors, decided, hints))
            await asyncio.shield(self._commit)

    async def _settle(
        self, upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None], hints: Mapping[int, Hint]
    ) -> None:
        batch = self._batch
        settlement, ends = batch.checkpoint(upto, errors, decided, hints)
        batch.unit.settled = upto + 1
        try:
            await areach("checkpoint.before")
            await self._committer.settle(settlement, away=self._stall)
            await areach("checkpoint.committed")
        except Fenced as fenced:
            self._fenced = True
            if self._execution is not None:
                self._execution.cancel()
            raise RequestRefused(f"checkpoint: {fenced}") from None
        except VersionConflict as conflict:
            batch.unit.settled, batch.tape = batch.settled, None
            return await self._settle(upto, batch.conflicting(conflict) | dict(errors), decided, hints)
        except psycopg.Error as error:
            batch.unit.settled = batch.settled
            raise RequestRefused(f"checkpoint: {refusal(error)}") from None
        forget(batch.rows, settlement.rows, batch.items)
        if batch.tape is not None:
            batch.tape.left(settlement, batch.settled, upto + 1 - batch.settled, decided)
        batch.waiting += put_off(batch.rows, settlement.rows)
        batch.failures += ends.values()
        batch.settled = upto + 1
        batch.unit.forget(upto)
        self._journal.forget(upto)

    def _stall(self) -> None:
        self.stalled = True


def no_part_of_it() -> RequestRefused:
    """Why a checkpoint is refused where a batch is all or none."""
    return RequestRefused(
        "checkpoint: this trigger's batches are all or none, so no part is settled before the rest.",
        cure='Take the checkpoint out, or declare the trigger without batch="all-or-none".',
        page="retries",
    )
