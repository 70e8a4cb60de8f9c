"""The sources that an old service still answers: who acts now, and what is kept of what was forwarded.

What the old service said goes back first. Beside that, deliveries whose signature is right go into the ledger with the
old answer, many in one commit; while the database is away they wait, as many as fit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from circuit_script.clock import uuid7
from circuit_script.db.pool import Pool
from circuit_script.errors import IntakeRefused
from circuit_script.events.intake import Accepted, Intake
from circuit_script.events.ledger import Connection, Ledger, LedgerAway, LedgerRow, Unstorable
from circuit_script.events.mirror_gateways import behind, leave, tell
from circuit_script.events.mirror_moves import OLD, MirrorState, read_states
from circuit_script.events.mirrors import OldAnswer, keep, ours_already
from circuit_script.events.sources import Reason, Request, Source
from circuit_script.gateway.mirror import Mirror, OldAway
from circuit_script.gateway.webhooks import Scope, Send
from circuit_script.settings_mirror import MirrorSettings
from circuit_script.tasks import end

LOOK = 0.4  # seconds between two looks who acts: a cutover counts within a second
LOOK_PATIENCE = 2.0
LOOK_TURNING = 0.05  # while a move is followed: deliveries wait for it
TURNING = 10.0  # seconds after which the old service is given them though other gateways still have some
MOST_KEPT = 2000  # deliveries that wait for the ledger
MOST_BYTES = 32 * 1024 * 1024
GROUP = 100
AGAIN = 0.5  # seconds before the ledger is asked again
LAST_SECONDS = 5.0  # in which a gateway that stops writes what it has
RESENT = timedelta(days=1)  # for which vendors may send again what ours took before the old service acts again

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Told:
    side: _Side
    row: LedgerRow
    answer: OldAnswer

    @property
    def size(self) -> int:
        return len(self.row.body) + len(self.answer.body) + 1000


@dataclass(slots=True, eq=False)
class _Side:
    """A mirrored source as this gateway knows it. ``open`` are deliveries that the old service was given and that are
    not kept yet, ``taking`` those that ours was given and has not answered."""

    source: str
    mirror: Mirror
    state: MirrorState
    open: int = 0
    taking: int = 0
    follows: datetime | None = None  # the move that counts
    told: tuple[datetime | None, int] | None = None  # what the other gateways have heard
    turned: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = 0.0  # when the move was heard of

    @property
    def before(self) -> int:
        """What the side that acted before still has."""
        return self.taking if self.state.acts == OLD else self.open

    def heard(self, state: MirrorState) -> None:
        if state.since != self.state.since:
            self.began = time.monotonic()
            self.turned.clear()
        self.state = state

    def settled(self, elsewhere: bool) -> bool:
        """Whether the latest move counts now; ``elsewhere``: other gateways do not follow it yet."""
        if self.turned.is_set():
            return True
        late = self.state.acts == OLD and time.monotonic() - self.began > TURNING
        if late or (self.told == (self.state.since, 0) and not self.before and not elsewhere):
            self.turned.set()
        return self.turned.is_set()


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
        self._id = uuid7()
        self._sides = {
            source: _Side(source, Mirror(source, each), MirrorState(source, OLD)) for source, each in settings.items()
        }
        self._intake = intake
        self._pool = pool
        self._ledger = Ledger(connect, pooler=pooler)
        self._asking = Ledger(connect, pooler=pooler)
        self._known = False
        self._told: deque[_Told] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Mirrors:
        if self._sides:
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
        elif not any(side.open for side in self._sides.values()):
            await self._leave()
        async with AsyncExitStack() as stack:
            for side in self._sides.values():
                stack.callback(side.mirror.close)
            stack.push_async_callback(self._ledger.close)
            stack.push_async_callback(self._asking.close)

    def has(self, source: str) -> bool:
        """Whether an old service may answer it, by whatever method it is asked."""
        return source in self._sides

    async def forwarding(self, source: Source) -> Mirror | None:
        """Where a delivery of the source goes that is there whole; None: ours acts, within ``taking``. Between this and
        what follows nothing may be awaited. Raises IntakeRefused while nobody can tell."""
        side = self._sides.get(source.name)
        if side is None:
            return None
        if not self._known:
            raise _later(source, "Nobody knows yet who acts on this; send again.", Reason.DATABASE_AWAY)
        if not side.turned.is_set():
            # A vendor may send again what the other side has not answered yet: that is to be known first.
            try:
                async with asyncio.timeout(side.mirror.timeout):
                    while not side.turned.is_set():
                        await side.turned.wait()
            except TimeoutError:
                raise _later(source, "The other side still has deliveries; send again.", Reason.OVERLOADED) from None
        return side.mirror if side.state.acts == OLD else None

    @contextmanager
    def taking(self, source: str) -> Iterator[None]:
        """Ours has a delivery of it meanwhile."""
        side = self._sides.get(source)
        if side is None:
            yield
            return
        side.taking += 1
        try:
            yield
        finally:
            side.taking -= 1

    async def pass_on(self, source: Source, request: Request, scope: Scope, send: Send) -> Accepted | None:
        """Forward it and return what the old service says; or, where ours took it before, our own answer. Raises
        IntakeRefused where the old service is away."""
        side = self._sides[source.name]
        side.open += 1
        kept = False
        try:
            if (first := await self._ours(side, source, request)) is not None:
                return Accepted(first, first)
            began = time.monotonic()
            away: OldAway | None = None
            try:
                answer = await side.mirror.pass_on(request, scope, send)
            except OldAway as error:
                log.warning("the old service of %s did not answer: %s", source.name, error)
                answer, away = OldAnswer(0, "", b"", 1000 * (time.monotonic() - began)), error
                self._intake.refusals.add(source.name, Reason.OLD_AWAY)
            kept = await self._later_kept(side, source, request, answer)
            if away is not None:
                raise _later(source, "The service behind this is away; send again.", Reason.OLD_AWAY) from away
        except IntakeRefused as refused:
            if refused.reason in (Reason.UNFORWARDABLE, Reason.UNKNOWN_ACCOUNT):
                self._intake.refusals.add(source.name, refused.reason)
            raise
        finally:
            if not kept:
                side.open -= 1
        return None

    async def _ours(self, side: _Side, source: Source, request: Request) -> UUID | None:
        """Ours took it before the old service began to act again, and its sender did not hear of it."""
        since = side.state.since
        if since is None or datetime.now(UTC) - since > RESENT:
            return None
        try:
            async with asyncio.timeout(LOOK_PATIENCE):
                if not _is_delivery(source, request):
                    return None
                return await ours_already(self._asking, await self._intake.row_of(source, request))
        except (IntakeRefused, LedgerAway, Unstorable, TimeoutError):
            return None  # the old service may say what it thinks of it

    async def _later_kept(self, side: _Side, source: Source, request: Request, answer: OldAnswer) -> bool:
        """Whether it waits for the ledger now. What is not signed takes no room there."""
        try:
            if not _is_delivery(source, request):
                return False
            row = await self._intake.row_of(source, request)
        except IntakeRefused as refused:
            self._intake.refusals.add(side.source, refused.reason)
            if 200 <= answer.status < 300:
                self._intake.refusals.add(side.source, Reason.OLD_TOOK)
            return False
        except Exception:
            log.exception("a delivery that the old service answered cannot be read")
            self._intake.refusals.add(side.source, Reason.NOT_MIRRORED)
            return False
        told = _Told(side, row, answer)
        if len(self._told) >= MOST_KEPT or self._size + told.size > MOST_BYTES:
            self._intake.refusals.add(side.source, Reason.NOT_MIRRORED)
            return False
        self._told.append(told)
        self._size += told.size
        self._arrived.set()
        return True

    async def _follow(self) -> None:
        while True:
            turning = self._known and not all(side.turned.is_set() for side in self._sides.values())
            await asyncio.sleep(LOOK_TURNING if turning else LOOK)
            await self._look()

    async def _look(self) -> None:
        """Say what is followed here, then ask: who reads a move after that is waited for. While the database is away,
        who acted goes on to act."""
        telling = {name: (side.state.since if self._known else None, side.before) for name, side in self._sides.items()}
        elsewhere: frozenset[str] = frozenset(self._sides)
        try:
            async with asyncio.timeout(LOOK_PATIENCE), self._pool.connection(timeout=LOOK_PATIENCE) as connection:
                await tell(connection, self._id, telling)
                for name, side in self._sides.items():
                    side.told = telling[name]
                states = await read_states(connection)
                elsewhere = await behind(connection, self._id)
        except (psycopg.Error, PoolTimeout, OSError, TimeoutError) as error:
            log.warning("who acts on mirrored sources cannot be read: %s", " ".join(str(error).split()) or "no answer")
        else:
            self._known = True
            for name, side in self._sides.items():
                side.heard(states.get(name, MirrorState(name, OLD)))
        for name, side in self._sides.items():
            side.settled(name in elsewhere)

    async def _leave(self) -> None:
        with suppress(psycopg.Error, PoolTimeout, OSError, TimeoutError):
            async with asyncio.timeout(LOOK_PATIENCE), self._pool.connection(timeout=LOOK_PATIENCE) as connection:
                await leave(connection, self._id)

    async def _keep(self) -> None:
        """For as long as there is something: an error here must not end it."""
        while self._told or not self._closing:
            if not self._told:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = [self._told.popleft() for _ in range(min(GROUP, len(self._told)))]
            try:
                left: Sequence[_Told] = group
                while left:
                    now, left = _apart(left)
                    await self._write(now)
            except Exception:
                log.exception("deliveries that the old service answered could not be kept")
                for each in group:
                    self._intake.refusals.add(each.side.source, Reason.NOT_MIRRORED)
            finally:
                for each in group:
                    self._size -= each.size
                    each.side.open -= 1

    async def _write(self, told: Sequence[_Told]) -> None:
        """One poisoned delivery must not keep the others out: halve until it stands alone."""
        while True:
            try:
                return await keep(self._ledger, [each.row for each in told], [each.answer for each in told])
            except LedgerAway as error:
                log.warning("the ledger is away: %s; what the old service answered waits", error.detail)
                await asyncio.sleep(AGAIN)
            except (Unstorable, ValueError) as error:
                break_ = error
                break
        if len(told) == 1:
            log.warning("a delivery that the old service answered cannot be stored: %s", break_)
            self._intake.refusals.add(told[0].side.source, Reason.UNSTORABLE)
            return
        middle = len(told) // 2
        await self._write(told[:middle])
        await self._write(told[middle:])


def _apart(told: Sequence[_Told]) -> tuple[list[_Told], list[_Told]]:
    """Those that may share a statement, and those that may be duplicates of them."""
    seen: set[tuple[str, str, str | None, str | None]] = set()
    now: list[_Told] = []
    later: list[_Told] = []
    for each in told:
        row = each.row
        key = row.source, row.account, row.vendor_id, row.record_key
        (later if key in seen else now).append(each)
        seen.add(key)
    return now, later


def _is_delivery(source: Source, request: Request) -> bool:
    """Not a vendor's question who we are. Raises IntakeRefused for one that is asked wrongly."""
    return request.method == "POST" and not (source.challenges and source.challenge(request) is not None)


def _later(source: Source, detail: str, reason: Reason) -> IntakeRefused:
    return IntakeRefused(source.overload_status, reason, detail)
