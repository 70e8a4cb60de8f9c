"""Records live executions while somebody compares: a bounded writer that can stall or fail without slowing one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from circuit_script.db.pool import Pool
from circuit_script.events.recordings import DENSEST, Ended, Recording, packed, size_of, store
from circuit_script.events.taping import Tape
from circuit_script.settings_shadow import ShadowSettings
from circuit_script.telemetry.at_most import AtMost
from circuit_script.telemetry.flushing import Flushing

PATIENCE = "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '4s', true)"
STALL = 5.0  # seconds that one write may take before its recordings are given up
GROUP, GROUP_BYTES = 50, 4_000_000  # recordings and their bytes in one statement, at about that
BOUND = 500  # recordings that wait
BOUND_BYTES = 16_000_000  # that they have before they are compressed, together; as Python's objects several times that
LOOSE = 8  # times `largest` that a recording may have before it is compressed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Executions that were not kept: those that the ``sample`` left out, those over the ``rate``, and those of a
    ``size`` that is too much, or that could not be stored."""

    sample: int = 0
    rate: int = 0
    size: int = 0


class Recorder:
    """Takes tapes of executions that have concluded, of which ``sampling`` is the share: 0 while nobody compares, and
    then nothing is recorded. A worker keeps ``most_per_second``; at most `BOUND` wait in memory, of `BOUND_BYTES`."""

    def __init__(
        self, pool: Pool, settings: ShadowSettings | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sampling = 0.0
        self.written = 0
        self._pool = pool
        self._settings = settings or ShadowSettings()
        most = float(self._settings.most_per_second)
        self._room = AtMost(most, most, clock)
        self._waiting: deque[tuple[Recording, int]] = deque()
        self._held = 0  # bytes of those that wait, or are being written
        self._flushing = Flushing(self._waiting, self._flush)
        self._sample = self._rate = self._size = 0

    def follow(self, sample: float) -> None:
        """Record this share of the executions that begin from now on; 0.0 for none."""
        self.sampling = min(1.0, max(0.0, sample))

    def skipped(self) -> Skipped:
        """What was not kept since this was last asked."""
        found = Skipped(self._sample, self._rate, self._size)
        self._sample = self._rate = self._size = 0
        return found

    def begin(self, release: int) -> Tape | None:
        """The tape of an execution of this release that is about to begin; None for one that is not recorded."""
        if not self.sampling:
            return None
        if self.sampling < 1.0 and random.random() >= self.sampling:  # chooses what is compared, guards nothing
            self._sample += 1
            return None
        if not self._room.may():
            self._rate += 1
            return None
        return Tape(release, LOOSE * self._settings.largest)

    def keep(self, tape: Tape, ended: Ended) -> None:
        """The execution has concluded, and so it ended; never waits."""
        if not tape.whole:
            self._size += 1
            return
        if len(self._waiting) >= BOUND or self._held >= BOUND_BYTES:
            self._rate += 1
            return
        recording = tape.recording(ended)
        size = size_of(recording, DENSEST * self._settings.largest)
        if size is None:
            self._size += 1
        elif self._waiting and self._held + size > BOUND_BYTES:
            self._rate += 1
        else:
            self._held += size
            self._waiting.append((recording, size))
            self._flushing.wake()

    def stop(self) -> None:
        self._flushing.stop()

    async def run(self) -> None:
        """Write until stopped, and then what is left."""
        await self._flushing.run()

    async def _flush(self) -> None:
        rows: list[tuple[Recording, bytes]] = []
        held = 0
        try:
            while self._waiting and len(rows) < GROUP and sum(len(body) for _, body in rows) < GROUP_BYTES:
                each, size = self._waiting.popleft()
                held += size
                body = await asyncio.to_thread(self._packed, each)
                if body is None:
                    self._size += 1
                else:
                    rows.append((each, body))
            if rows:
                await self._write(rows)
        finally:
            self._held -= held

    async def _write(self, rows: Sequence[tuple[Recording, bytes]]) -> None:
        """Keep these; one that PostgreSQL does not take takes no other along."""
        try:
            await self._store(rows)
        except (psycopg.DataError, UnicodeError) as error:
            if len(rows) > 1:
                for each in rows:
                    await self._write([each])
                return
            self._size += 1
            log.warning("recordings.dropped", recordings=1, error=repr(error), handler=rows[0][0].handler)
        except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
            self._size += len(rows)
            log.warning("recordings.dropped", recordings=len(rows), error=str(error) or repr(error))

    async def _store(self, rows: Sequence[tuple[Recording, bytes]]) -> None:
        async with asyncio.timeout(STALL), self._pool.connection() as connection, connection.transaction():
            await connection.execute(PATIENCE)
            await store(connection, rows)
        self.written += len(rows)

    def _packed(self, recording: Recording) -> bytes | None:
        """As it is stored; None for what is too large, or cannot be."""
        try:
            return packed(recording, self._settings.largest)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            log.warning("recordings.dropped", recordings=1, error=repr(error), handler=recording.handler)
            return None
