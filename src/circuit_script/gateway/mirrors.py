"""The sources that an old service still answers: who acts now, and what is kept of what was forwarded.

What the old service said goes back first. Beside that, deliveries whose signature is right go into the ledger with the
old answer, many in one commit; while the database is away they wait, as many as fit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from circuit_script.db.pool import Pool
from circuit_script.errors import IntakeRefused
from circuit_script.events.intake import Accepted, Intake
from circuit_script.events.ledger import Connection, Ledger, LedgerAway, LedgerRow, Unstorable
from circuit_script.events.mirror_moves import OLD, MirrorState, read_states
from circuit_script.events.mirrors import OldAnswer, keep, ours_already
from circuit_script.events.sources import Reason, Request, Source
from circuit_script.gateway.mirror import Mirror, OldAway
from circuit_script.gateway.webhooks import Scope, Send
from circuit_script.settings_mirror import MirrorSettings
from circuit_script.tasks import end

LOOK = 0.4  # seconds between two looks who acts: a cutover counts within a second
LOOK_PATIENCE = 2.0
MOST_KEPT = 2000  # deliveries that wait for the ledger
MOST_BYTES = 32 * 1024 * 1024
GROUP = 100
AGAIN = 0.5  # seconds before the ledger is asked again
LAST_SECONDS = 5.0  # in which a gateway that stops writes what it has
RESENT = timedelta(days=1)  # for which vendors may send again what ours took before the old service acts again

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Told:
    mirror: Mirror
    source: Source
    request: Request
    answer: OldAnswer

    @property
    def size(self) -> int:
        return len(self.request.body) + len(self.answer.body) + 1000


_Row = tuple[LedgerRow, _Told]


class Mirrors:
    """Knows who acts on each mirrored source, and forwards while it is the old service. Use as ``async with``."""

    def __init__(
        self,
        settings: Mapping[str, MirrorSettings],
        *,
        intake: Intake,
        pool: Pool,
        connect: Callable[[], Awaitable[Connection]],
        pooler: bool,
    ) -> None:
        """Raises ConfigError for an address that is none."""
        self._mirrors = {source: Mirror(source, each) for source, each in settings.items()}
        self._intake = intake
        self._pool = pool
        self._ledger = Ledger(connect, pooler=pooler)
        self._asking = Ledger(connect, pooler=pooler)
        self._states: Mapping[str, MirrorState] | None = None
        self._told: deque[_Told] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Mirrors:
        if self._mirrors:
            await self._look()
            self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._keep())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Once nothing is forwarded any more."""
        if not self._tasks:
            return
        following, keeping = self._tasks
        self._closing = True
        self._arrived.set()
        await asyncio.wait([keeping], timeout=LAST_SECONDS)
        await end([following, keeping])
        if self._told:
            log.warning("%d deliveries that the old service answered could not be kept", len(self._told))
        async with AsyncExitStack() as stack:
            for each in self._mirrors.values():
                stack.push_async_callback(each.aclose)
            stack.push_async_callback(self._ledger.close)
            stack.push_async_callback(self._asking.close)

    async def forwarding(self, source: Source) -> Mirror | None:
        """Where deliveries of the source go now; None: ours acts. Raises IntakeRefused while nobody can tell."""
        mirror = self._mirrors.get(source.name)
        if mirror is None:
            return None
        if self._states is None:
            raise _later(source, "Nobody knows yet who acts on this; send again.", Reason.DATABASE_AWAY)
        if self._acts(source.name) == OLD:
            return mirror
        if mirror.open:
            # A vendor may send again what the old service has not answered yet: that is to be known first.
            try:
                async with asyncio.timeout(mirror.timeout):
                    await mirror.settled.wait()
            except TimeoutError:
                raise _later(source, "The old service still has deliveries; send again.", Reason.OVERLOADED) from None
        return None

    def _acts(self, source: str) -> str:
        state = (self._states or {}).get(source)
        return OLD if state is None else state.acts

    async def pass_on(
        self, mirror: Mirror, source: Source, request: Request, scope: Scope, send: Send
    ) -> Accepted | None:
        """Forward it and return what the old service says; or, where ours took it before, our own answer. Raises
        IntakeRefused where the old service is away."""
        mirror.open += 1
        mirror.settled.clear()
        answer: OldAnswer | None = None
        try:
            if (first := await self._ours(source, request)) is not None:
                return Accepted(first, first)
            began = time.monotonic()
            try:
                answer = await mirror.pass_on(request, scope, send)
            except OldAway as error:
                log.warning("the old service of %s did not answer: %s", source.name, error)
                answer = OldAnswer(0, "", b"", 1000 * (time.monotonic() - began))
                self._intake.refusals.add(source.name, Reason.OLD_AWAY)
                raise _later(source, "The service behind this is away; send again.", Reason.OLD_AWAY) from error
        except IntakeRefused as refused:
            if refused.reason == Reason.UNFORWARDABLE:
                self._intake.refusals.add(source.name, refused.reason)
            raise
        finally:
            if answer is None:
                self._settle(mirror)
            else:
                self._later_kept(_Told(mirror, source, request, answer))
        return None

    async def _ours(self, source: Source, request: Request) -> UUID | None:
        """Ours took it before the old service began to act again, and its sender did not hear of it."""
        state = (self._states or {}).get(source.name)
        if state is None or state.since is None or datetime.now(UTC) - state.since > RESENT:
            return None
        try:
            async with asyncio.timeout(LOOK_PATIENCE):
                if not _is_delivery(source, request):
                    return None
                return await ours_already(self._asking, await self._intake.row_of(source, request))
        except (IntakeRefused, LedgerAway, Unstorable, TimeoutError):
            return None  # the old service may say what it thinks of it

    def _later_kept(self, told: _Told) -> None:
        if len(self._told) >= MOST_KEPT or self._size + told.size > MOST_BYTES:
            self._intake.refusals.add(told.source.name, Reason.NOT_MIRRORED)
            self._settle(told.mirror)
            return
        self._told.append(told)
        self._size += told.size
        self._arrived.set()

    def _settle(self, mirror: Mirror) -> None:
        mirror.open -= 1
        if not mirror.open:
            mirror.settled.set()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._look()

    async def _look(self) -> None:
        """While the database is away, who acted goes on to act: nobody can have moved it."""
        try:
            async with asyncio.timeout(LOOK_PATIENCE), self._pool.connection(timeout=LOOK_PATIENCE) as connection:
                self._states = await read_states(connection)
        except (psycopg.Error, PoolTimeout, OSError, TimeoutError) as error:
            log.warning("who acts on mirrored sources cannot be read: %s", " ".join(str(error).split()) or "no answer")

    async def _keep(self) -> None:
        """For as long as there is something: an error here must not end it."""
        while self._told or not self._closing:
            if not self._told:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = [self._told.popleft() for _ in range(min(GROUP, len(self._told)))]
            try:
                await self._keep_group(group)
            except Exception:
                log.exception("deliveries that the old service answered could not be kept")
                for each in group:
                    self._intake.refusals.add(each.source.name, Reason.NOT_MIRRORED)
            finally:
                for each in group:
                    self._size -= each.size
                    self._settle(each.mirror)

    async def _keep_group(self, group: list[_Told]) -> None:
        rows: list[_Row] = []
        for told in group:
            try:
                if _is_delivery(told.source, told.request):
                    rows.append((await self._intake.row_of(told.source, told.request), told))
            except IntakeRefused as refused:
                self._intake.refusals.add(told.source.name, refused.reason)
        while rows:
            now, rows = _apart(rows)
            await self._write(now)

    async def _write(self, rows: list[_Row]) -> None:
        """One poisoned delivery must not keep the others out: halve until it stands alone."""
        while True:
            try:
                return await keep(self._ledger, [row for row, _ in rows], [told.answer for _, told in rows])
            except LedgerAway as error:
                log.warning("the ledger is away: %s; what the old service answered waits", error.detail)
                await asyncio.sleep(AGAIN)
            except (Unstorable, ValueError) as error:
                break_ = error
                break
        if len(rows) == 1:
            log.warning("a delivery that the old service answered cannot be stored: %s", break_)
            self._intake.refusals.add(rows[0][1].source.name, Reason.UNSTORABLE)
            return
        middle = len(rows) // 2
        await self._write(rows[:middle])
        await self._write(rows[middle:])


def _apart(rows: Sequence[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Those that may share a statement, and those that may be duplicates of them."""
    seen: set[tuple[str, str, str | None, str | None]] = set()
    now: list[_Row] = []
    later: list[_Row] = []
    for row, told in rows:
        key = row.source, row.account, row.vendor_id, row.record_key
        (later if key in seen else now).append((row, told))
        seen.add(key)
    return now, later


def _is_delivery(source: Source, request: Request) -> bool:
    """Not a vendor's question who we are. Raises IntakeRefused for one that is asked wrongly."""
    return request.method == "POST" and not (source.challenges and source.challenge(request) is not None)


def _later(source: Source, detail: str, reason: Reason) -> IntakeRefused:
    return IntakeRefused(source.overload_status, reason, detail)
