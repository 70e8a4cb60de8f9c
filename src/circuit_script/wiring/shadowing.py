"""Each worker takes part in the shadow that is open: it records, runs the candidate on recordings, and compares.

The candidate has processes of its own, one at a time runs in them, and nothing that it does leaves. A worker that is
killed has compared nothing twice: who takes its place finds what it had taken and not said anything of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from circuit_script.clock import now
from circuit_script.config import Settings
from circuit_script.db.pool import Connection, Pool
from circuit_script.errors import CircuitError, DatabaseUnavailable, RecordingUnreadable, ReleaseRefused
from circuit_script.events.recorder import Recorder
from circuit_script.events.recordings import Recording, load
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.failpoints import areach
from circuit_script.releases import shadows
from circuit_script.releases.comparing import Difference, bounded, compare
from circuit_script.releases.moving import FAILED, READY, hosts_of, warm_up
from circuit_script.releases.shadow_report import report_of
from circuit_script.releases.shadows import DIFFERENT, INCOMPARABLE, SAME, TIME_UP, Settled, Shadow
from circuit_script.settings_spans import seconds_of
from circuit_script.wiring.children import make_children
from circuit_script.wiring.live import Live
from circuit_script.wiring.preparing import prepare
from circuit_script.wiring.shadow_run import TRIES, Shadowed, ShadowParts, not_taken, run_recording

log = structlog.get_logger()

EVERY = 1.0  # seconds between looks
AT_ONCE = 20  # recordings that are taken together
LONGEST = 20.0  # seconds after which those that are left of them are given back: others may be faster
AGAIN = 30.0  # seconds after which a candidate is prepared again that could not be
WHOLE = 30.0  # seconds between looks at all recordings of a shadow; else at those of the last minutes
GRACE = timedelta(seconds=5)  # for the last recordings to come
WARMING = timedelta(minutes=5)  # for every worker to have ready what is promoted
SPARE = 30.0  # seconds that a process may need beside its handler, before it is taken for lost
GONE = "the recording is gone: it was swept, or somebody's data was forgotten"
BY = "the shadow"
AWAY = (psycopg.Error, PoolTimeout, OSError, DatabaseUnavailable, TimeoutError)


@dataclass(slots=True)
class _Candidate:
    """A candidate that is prepared here, and the shadow that it was prepared for."""

    shadow: Shadow
    live: Live
    handlers: Mapping[str, HandlerSpec] = field(init=False)

    def __post_init__(self) -> None:
        self.handlers = {spec.name: spec for spec in self.live.manifest.handlers}

    async def end(self) -> None:
        async with AsyncExitStack() as stack:
            if self.live.files is not None:
                stack.push_async_callback(self.live.files.aclose)
            stack.push_async_callback(self.live.children.stop)


class Shadowing:
    """One worker's part in the shadow that is open. ``check`` says what of a candidate's handlers cannot be here."""

    def __init__(
        self,
        *,
        worker: UUID,
        settings: Settings,
        database: Pool,
        recorder: Recorder,
        parts: ShadowParts,
        check: Callable[[Iterable[HandlerSpec]], None],
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._database = database
        self._recorder = recorder
        self._parts = parts
        self._check = check
        self._candidate: _Candidate | None = None
        self._failed: tuple[int, float] | None = None  # the shadow whose candidate cannot be prepared, and since when
        self._whole = -WHOLE
        self._counted = 0  # the shadow for which the recorder counts what it leaves out
        self._asked = 0  # the shadow whose candidate every worker was asked to have ready

    async def run(self) -> None:
        """Until it is cancelled. A look that fails is tried again."""
        try:
            while True:
                try:
                    busy = await self.tick()
                except AWAY as error:
                    log.warning("shadow.database", error=" ".join(str(error).split()) or "no answer", next="again")
                    busy = False
                if not busy:
                    await asyncio.sleep(EVERY)
        finally:
            self._recorder.follow(0.0)
            await self._drop()

    async def tick(self) -> bool:
        """Look what is open, and compare what has come; whether there may be more at once."""
        async with self._database.connection() as connection:
            shadow = await shadows.current(connection)
            if shadow is not None and not shadow.on_live:
                why = f"another release went live than {shadow.against_name}"
                if await shadows.close(connection, shadow, why):
                    log.info("shadow.closed", release=shadow.release, why=why)
                shadow = None
            skipped = self._recorder.skipped()
            counted = shadow is not None and self._counted == shadow.id  # else they were left out of another one
            if shadow is not None and counted and any((skipped.sample, skipped.rate, skipped.size)):
                await shadows.add_skipped(connection, shadow, skipped.sample, skipped.rate, skipped.size)
        self._counted = 0 if shadow is None else shadow.id
        self._recorder.follow(0.0 if shadow is None or shadow.over else shadow.sample)
        if self._candidate is not None and (shadow is None or self._candidate.shadow.id != shadow.id):
            await self._drop()
        if shadow is None:
            return False
        candidate = self._candidate or await self._prepare(shadow)
        busy = candidate is not None and await self._take(shadow, candidate)
        if shadow.over and not busy:
            await self._finish(shadow)
        return busy

    async def _prepare(self, shadow: Shadow) -> _Candidate | None:
        """The candidate, ready to run; None where it cannot be, which the shadow's note says."""
        if self._failed is not None and self._failed[0] == shadow.id and time.monotonic() - self._failed[1] < AGAIN:
            return None
        said = ""
        try:
            live = await prepare(shadow.release, self._database, self._make_children, self._check)
        except AWAY:
            raise
        except CircuitError as error:
            said = f"{shadow.name} cannot run: {error.detail} {error.cure}".strip()
        else:
            self._candidate, self._failed = _Candidate(shadow, live), None
            log.info("shadow.opened", release=shadow.release, against=shadow.against, sample=shadow.sample)
        async with self._database.connection() as connection:
            await shadows.note(connection, shadow, said)
        if said:
            self._failed = shadow.id, time.monotonic()
            log.error("shadow.unprepared", release=shadow.release, error=said, next=f"again in {AGAIN:g} s")
        return self._candidate

    def _make_children(self, folder: Path, python: str) -> Children:
        """One child for batches and one for requests: what is live has the host's processors."""
        few = self._settings.worker.model_copy(update={"children": 1, "endpoint_children": 1})
        return make_children(self._settings.model_copy(update={"worker": few}), folder, python=python)

    async def _take(self, shadow: Shadow, candidate: _Candidate) -> bool:
        """Compare some recordings; whether there were any."""
        whole = shadow.over or time.monotonic() - self._whole > WHOLE
        async with self._database.connection() as connection:
            taken = await shadows.claim(connection, shadow, self._worker, AT_ONCE, whole=whole)
        if whole and not taken:
            self._whole = time.monotonic()
        await areach("shadow.claimed")
        left, began = set(taken), time.monotonic()
        try:
            for execution in taken:
                if time.monotonic() - began > LONGEST:
                    await self._give_back(shadow, left)
                    break
                settled = await self._compared(execution, candidate)
                await areach("shadow.compared")
                await self._settle(shadow, execution, settled)
                left.discard(execution)
        except BaseException:
            if left:
                await self._give_back(shadow, left)
            raise
        return bool(taken)

    async def _settle(self, shadow: Shadow, execution: UUID, settled: Settled) -> None:
        async with self._database.connection() as connection:
            try:
                await shadows.settle(connection, shadow, self._worker, execution, settled)
            except (psycopg.DataError, ValueError) as error:  # a value that PostgreSQL does not keep: NaN, "\0"
                why = f"what differs cannot be stored: {' '.join(str(error).split())[:300]}"
                await shadows.settle(connection, shadow, self._worker, execution, incomparable(why))

    async def _give_back(self, shadow: Shadow, left: Collection[UUID]) -> None:
        """What this worker does not compare any more, another may at once."""
        try:
            async with self._database.connection() as connection:
                await shadows.give_back(connection, shadow, self._worker)
        except AWAY:
            log.warning("shadow.left", executions=len(left), next="they are taken again")

    async def _compared(self, execution: UUID, candidate: _Candidate) -> Settled:
        """What came of one recording. One that cannot be compared is said to be so, with the reason."""
        async with self._database.connection() as connection:
            try:
                recording = await load(connection, execution)
            except RecordingUnreadable as error:
                return incomparable(f"the recording cannot be read: {error.detail}")
        if recording is None:
            return incomparable(GONE, public=True)
        if why := not_taken(recording, candidate.handlers):
            return incomparable(why)
        longest = SPARE + TRIES * candidate.handlers[recording.handler].limits.wall_time
        try:
            async with asyncio.timeout(longest) as patience:
                shadowed = await run_recording(recording, candidate.handlers, self._parts, candidate.live.children)
            return await asyncio.to_thread(settled_of, recording, shadowed, self._settings.shadow.ignore)
        except AWAY:
            if not patience.expired():
                raise
            return incomparable(f"the candidate gave no answer within {longest:g} s")
        except Exception as error:
            log.exception("shadow.bug", execution=str(execution), next="the others go on")
            return incomparable(f"the comparison failed: {type(error).__name__}: {error}")

    async def _finish(self, shadow: Shadow) -> None:
        """Its time is up: promote what was to be and may be, and end it."""
        over = now() - (shadow.until or now())
        if over < GRACE:
            return
        async with self._database.connection() as connection:
            if await shadows.is_at_work(connection, shadow) and over < WARMING:
                return
            why: str | None = TIME_UP
            if shadow.promote_below is not None:
                report = await report_of(connection, shadow)
                late = f"{report.waiting:,} recordings were not compared in time" if report.waiting else ""
                doubt = report.doubt or late
                why = f"{TIME_UP}, and it was not promoted: {doubt}" if doubt else None
                why = why or await self._promoted(connection, shadow, over)
            if why and await shadows.close(connection, shadow, why):
                log.info("shadow.closed", release=shadow.release, why=why)

    async def _promoted(self, connection: Connection, shadow: Shadow, over: timedelta) -> str | None:
        """Take it live, once every worker has it ready. None if it is live, or waits; else why it cannot."""
        if self._asked != shadow.id:
            await warm_up(connection, shadow.release)
            self._asked = shadow.id
            return None
        hosts = await hosts_of(connection, shadow.release)
        if failed := [each for each in hosts if each.state == FAILED]:
            return f"{TIME_UP}, and {failed[0].host} cannot run it: {failed[0].detail}"
        if any(each.state != READY for each in hosts):
            return None if over < WARMING else f"{TIME_UP}, and not every worker has it ready"
        watch = timedelta(seconds=seconds_of(self._settings.deploy.watch))
        reason = shadow.message or f"its shadow was the same as {shadow.against_name}"
        try:
            await shadows.promote(connection, shadow, by=f"{BY} of {shadow.by}", reason=reason, watch=watch)
        except ReleaseRefused as error:
            return f"{TIME_UP}, and it was not promoted: {error.detail}"
        log.info("shadow.promoted", release=shadow.release, before=shadow.against)
        return None

    async def _drop(self) -> None:
        """End the candidate's processes and remove its files."""
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            await candidate.end()


def settled_of(recording: Recording, shadowed: Shadowed, ignore: Collection[str]) -> Settled:
    """How the two compare. What asked for something that nobody recorded is not compared: it went on with a refusal."""
    live, ours = recording.ended, shadowed.ended
    found: list[Difference] = [Difference(None, "asked", "", "not asked", each) for each in shadowed.asked]
    state, different = INCOMPARABLE, 0
    if not found:
        ids = [str(each.get("id")) for each in recording.records]
        began = recording.started_at, shadowed.began
        compared = compare(ids, live, ours, ignore=ignore, began=began)
        found, different = list(compared.differences), compared.different
        state = DIFFERENT if found else SAME
    return Settled(
        state=state,
        different=different,
        live_ms=live.ms,
        shadow_ms=ours.ms,
        live_cost=live.cost,
        shadow_cost=ours.cost,
        live_calls=len(recording.replies),
        shadow_calls=shadowed.calls,
        differences=bounded(found),
    )


def incomparable(why: str, *, public: bool = False) -> Settled:
    """Nothing was compared, for this reason, which is ``public`` where nothing of the recording is in it."""
    return Settled(INCOMPARABLE, differences=bounded([Difference(None, "not compared", "", "", why)]), public=public)
