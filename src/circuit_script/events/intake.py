"""Intake: verify, find the tenant, remove duplicates, commit, and only then answer.

Many requests share one commit. A request that comes alone commits at once; what arrives while a commit is in
flight forms the next group. One commit is in flight per gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.effects.order import order_hash as order_hash
from circuit_script.errors import IntakeRefused
from circuit_script.events.bell import Bell
from circuit_script.events.ledger import Ledger, LedgerAway, LedgerRow, TakenIn, Unstorable
from circuit_script.events.refusals import Refusals
from circuit_script.events.sources import Parsed, Reason, Request, Source
from circuit_script.failpoints import areach, reach
from circuit_script.tasks import end
from circuit_script.tenants import TenantMap

MAX_GROUP = 500  # deliveries
MAX_GROUP_BYTES = 8 * 1024 * 1024
PAUSE_WHILE_AWAY = 0.2  # seconds in which nobody knocks again after the database was found away
MAX_HEADER = 1000  # characters of one header's value that the ledger keeps

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The delivery is in the ledger: under ``id``, or already under ``duplicate_of``."""

    id: UUID
    duplicate_of: UUID | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    source: Source
    parsed: Parsed
    tenant: str | None
    headers: bytes
    body: bytes
    answer: asyncio.Future[Accepted]
    followers: list[_Waiting] = field(default_factory=list)

    @property
    def vendor_key(self) -> tuple[str, str, str | None]:
        return self.source.name, self.parsed.account, self.parsed.vendor_id

    @property
    def record_key(self) -> tuple[str, str, str] | None:
        """What a vendor without delivery ids is compared by."""
        if self.parsed.vendor_id is not None:
            return None
        event = self.parsed.events[0]
        return self.source.name, self.parsed.account, f"{event.object}:{event.record}"


class Intake:
    """Takes deliveries into the ledger. Use as ``async with``."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        tenants: TenantMap,
        ledger: Ledger,
        bell: Bell | None = None,
        max_waiting: int = 5000,
    ) -> None:
        """Without a ``bell`` (behind a pooler) sleeping dispatchers find their events by polling."""
        self.sources = sources
        self.refusals = Refusals(ledger)
        self._tenants = tenants
        self._ledger = ledger
        self._bell = bell
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._away_until = 0.0
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Intake:
        self._tasks = [
            asyncio.create_task(self._commit_groups()),
            asyncio.create_task(self._flush_refusals()),
        ]
        if self._bell is not None:
            self._tasks.append(asyncio.create_task(self._bell.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finishes what waits, refuses what comes."""
        self._closing = True
        self._arrived.set()
        committing, *others = self._tasks
        await committing
        await end(others)
        await self.refusals.flush()
        await self._ledger.close()

    async def accept(self, source: Source, request: Request) -> Accepted:
        """Verify and commit one delivery. Raises IntakeRefused with the HTTP status of its reason."""
        try:
            if self._closing or len(self._waiting) >= self._max_waiting:
                raise _later(source, Reason.OVERLOADED, "Too much is waiting; send again.")
            if source.prepares:
                await source.prepare(request)
            parsed = source.parse(request, source.verify(request))
            if time.monotonic() < self._away_until:
                raise _away(source)
            waiting = _Waiting(
                source,
                parsed,
                self._tenants.tenant_of(source.name, parsed.account),
                _kept(request.headers, source.secret_headers),
                request.body,
                asyncio.get_running_loop().create_future(),
            )
            self._waiting.append(waiting)
            self._arrived.set()
            return await waiting.answer
        except IntakeRefused as refused:
            self.refusals.add(source.name, refused.reason)
            raise

    async def row_of(self, source: Source, request: Request) -> LedgerRow:
        """What the ledger keeps of a delivery that an old service answers. Raises IntakeRefused."""
        if source.prepares:
            await source.prepare(request)
        parsed = source.parse(request, source.verify(request))
        tenant = self._tenants.tenant_of(source.name, parsed.account)
        kept = _kept(request.headers, source.secret_headers)
        unanswered: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        return _row(_Waiting(source, parsed, tenant, kept, request.body, unanswered))

    async def _commit_groups(self) -> None:
        """For as long as the intake is open: an error here must neither end it nor leave anybody waiting."""
        while self._waiting or not self._closing:
            group: list[_Waiting] = []
            try:
                if self._waiting:
                    self._next_group(group)
                    await self._settle(group)
                else:
                    self._arrived.clear()
                    await self._arrived.wait()
            except Exception:
                log.exception("a group could not be settled")
                self._send_away(group)
            except BaseException:
                self._closing = True
                self._send_away(group)
                raise

    async def _flush_refusals(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self.refusals.flush()

    def _next_group(self, group: list[_Waiting]) -> None:
        """Move the next to share a commit into ``group``; by an error here nobody is lost. Of deliveries that may be
        duplicates of each other it takes one: the same vendor's id shares its fate, the same record without one waits
        for the next group."""
        by_vendor_id: dict[tuple[str, str, str | None], _Waiting] = {}
        records: set[tuple[str, str, str]] = set()
        later: list[_Waiting] = []
        size = 0
        try:
            while self._waiting and len(group) < MAX_GROUP:
                each = self._waiting[0]
                if group and size + len(each.body) > MAX_GROUP_BYTES:
                    break
                record_key = each.record_key
                self._waiting.popleft()
                if record_key is not None:
                    if record_key in records:
                        later.append(each)
                        continue
                    records.add(record_key)
                elif (first := by_vendor_id.setdefault(each.vendor_key, each)) is not each:
                    first.followers.append(each)
                    continue
                group.append(each)
                size += len(each.body)
        finally:
            self._waiting.extendleft(reversed(later))

    async def _settle(self, group: list[_Waiting]) -> None:
        try:
            rows = [_row(each) for each in group]
            await areach("intake.before")
            taken = await self._ledger.take_in(rows)
            await areach("intake.committed")
        except (Unstorable, ValueError) as error:  # ValueError: text that cannot be encoded
            await self._settle_apart(group, error)
        except LedgerAway as error:
            log.warning("the ledger is away: %s", error.detail)
            self._send_away(group)
        except Exception:
            log.exception("a group could not be taken in")
            self._send_away(group)
        else:
            self._answer(group, rows, taken)
            reach("intake.answered")

    async def _settle_apart(self, group: list[_Waiting], error: Exception) -> None:
        """One poisoned delivery must not keep the others out: halve until it stands alone."""
        if len(group) > 1:
            middle = len(group) // 2
            await self._settle(group[:middle])
            await self._settle(group[middle:])
            return
        log.warning("a delivery cannot be stored: %s", error)
        refused = IntakeRefused(400, Reason.UNSTORABLE, "The delivery holds what the ledger cannot store.")
        for each in (group[0], *group[0].followers):
            _refuse(each, refused)

    def _answer(self, group: list[_Waiting], rows: list[LedgerRow], taken: TakenIn) -> None:
        if taken.asleep and self._bell is not None:
            self._bell.ring()
        for each, row in zip(group, rows, strict=True):
            first = taken.duplicates.get(row.id)
            if not each.answer.done():
                each.answer.set_result(Accepted(row.id, first))
            for follower in each.followers:
                if not follower.answer.done():
                    follower.answer.set_result(Accepted(row.id, first or row.id))

    def _send_away(self, group: list[_Waiting]) -> None:
        """Nobody hangs while the database is away: who waits is sent away with who was in the group."""
        self._away_until = time.monotonic() + PAUSE_WHILE_AWAY
        everyone = [one for each in (*group, *self._waiting) for one in (each, *each.followers)]
        self._waiting.clear()
        for each in everyone:
            _refuse(each, _away(each.source))


def _later(source: Source, reason: Reason, detail: str) -> IntakeRefused:
    """A refusal with the status that makes this vendor send again."""
    return IntakeRefused(source.overload_status, reason, detail)


def _away(source: Source) -> IntakeRefused:
    return _later(source, Reason.DATABASE_AWAY, "The database is away; send again.")


def _refuse(waiting: _Waiting, refused: IntakeRefused) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(refused)


def _kept(headers: Mapping[str, str], secret: Sequence[str]) -> bytes:
    kept = {name: value[:MAX_HEADER].replace("\0", "\ufffd") for name, value in headers.items() if name not in secret}
    return msgspec.json.encode(kept)


def _row(waiting: _Waiting) -> LedgerRow:
    """The id is made as late as here, so that ids rise in the order in which this gateway commits."""
    parsed, record_key = waiting.parsed, waiting.record_key
    return LedgerRow(
        uuid7(),
        waiting.source.name,
        parsed.account,
        waiting.tenant,
        parsed.vendor_id,
        None if record_key is None else record_key[2],
        waiting.headers,
        waiting.body,
        parsed.events,
        tuple(order_hash(waiting.tenant or "", event.order_key) for event in parsed.events),
        parsed.depth,
    )
