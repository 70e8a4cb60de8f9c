"""What the road thinks of texts, in a trial: records are screened by the app's policy, where the road does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item
from circuit_script.events.screening import Screen, held_by, lines_of, plain_of, reason_of, without_held
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.wiring.judgment import make_protocol, make_screen
from circuit_script.wiring.trial_batch import Attempt, Given, attempt
from circuit_script.wiring.trial_result import TrialBatch

HELD = "held"
REPLAY = UUID(int=0)  # what is replayed is not let pass once, as what a person retries is


@dataclass(frozen=True, slots=True)
class Route:
    """What is tried: a handler, for these events of this tenant."""

    spec: HandlerSpec
    object: str
    event: str
    tenant: str
    source: str

    def attempt(self, given: Sequence[Given]) -> Attempt:
        return attempt(self.spec, given, object_=self.object, event=self.event, tenant=self.tenant, source=self.source)


@dataclass(frozen=True, slots=True)
class Held:
    """Records that do not run: what is kept of them, and their end."""

    attempt: Attempt
    batch: TrialBatch


@dataclass(slots=True)
class Judging:
    """Screens the records of trials of one app; without ``[judgment] records`` it lets all of them through."""

    settings: Settings
    _screen: Screen | None = field(init=False)

    def __post_init__(self) -> None:
        self._screen = make_screen(make_protocol(self.settings), self.settings)

    async def screened(self, items: Sequence[Item], *, echoes: bool) -> list[Item]:
        """The same with verdicts, as they are when these events arrive, or are replayed."""
        if self._screen is None or not items:
            return list(items)
        again = [replace(each, row=_replayed(each.row)) for each in items]
        found = await self._screen.screened(again, echoes=echoes)
        return [replace(each, verdicts=judged.verdicts) for each, judged in zip(items, found, strict=True)]

    async def parted(self, route: Route, given: Sequence[Given]) -> tuple[Attempt | None, Held | None]:
        """What is to run of these, and what is held."""
        items = await self.screened([_item(route, each) for each in given], echoes=route.spec.echoes)
        pairs = list(zip(items, given, strict=True))
        alive = [pair for pair in pairs if held_by(pair[0]) is None]
        held = [pair for pair in pairs if held_by(pair[0]) is not None]
        running = route.attempt([each for _, each in alive]) if alive else None
        if running is not None:
            judged_of(running, [item for item, _ in alive])
        if not held:
            return running, None
        # As the road keeps what else they brought: of the event before it.
        kept = [replace(each, incoming=without_held(item), seq=each.seq - 1) for item, each in held]
        holding = route.attempt(kept)
        judged_of(holding, [item for item, _ in held])
        return running, Held(holding, _end_of(holding, [item for item, _ in held]))


def judged_of(trying: Attempt, items: Sequence[Item]) -> None:
    """Give an attempt what was found in its records."""
    trying.work = replace(
        trying.work, verdicts={place: plain_of(item.verdicts) for place, item in enumerate(items) if item.verdicts}
    )
    for item in items:
        for line in lines_of(item):
            trying.log(line)


def _end_of(holding: Attempt, items: Sequence[Item]) -> TrialBatch:
    errors = {item.row.record: reason_of(item) or "it is held" for item in items}
    return TrialBatch(
        execution=holding.work.execution,
        records=tuple(errors),
        status=HELD,
        duration=0.0,
        usage={},
        ceilings={},
        reason=next(iter(errors.values())),
        errors=errors,
        log=tuple(holding.lines),
    )


def _item(route: Route, given: Given) -> Item:
    row = Queued(
        id=given.seq,
        handler=0,
        lane=0,
        attempts=0,
        ordinal=0,
        order_hash=0,
        delivery=uuid7(),
        not_before=None,
        held_until=None,
        tenant=route.tenant,
        object=route.object,
        event=route.event,
        record=given.id,
    )
    return Item(row, given.incoming, given.record, given.old, {"source": route.source}, echo=False)


def _replayed(row: Queued) -> Queued:
    return row if row.past is None else replace(row, replay=REPLAY)
