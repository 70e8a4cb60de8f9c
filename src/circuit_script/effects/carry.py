"""Carrying one bulk to its vendor: what is in doubt is looked up first, what is refused as a whole goes in halves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from circuit_script.connectors.connector import (
    Connector,
    Delivered,
    Delivery,
    InDoubt,
    Later,
    LooksUp,
    Operation,
    Refused,
    SlowDown,
    Unknown,
)
from circuit_script.db.pool import Pool
from circuit_script.effects.due import Due
from circuit_script.effects.results import mark
from circuit_script.failpoints import areach

log = structlog.get_logger()

UNHEARD = "a request for it left, and the worker ended before it heard what came of it"
UNFOUND = "it cannot be found out whether it was done"

Results = dict[UUID, Delivery | None]


@dataclass(frozen=True, slots=True)
class Carrier:
    """Carries bulks of one operation. ``begins`` is called before each request, with whether it is a further one of its
    bulk, and ``heard`` after it; it goes on while ``goes_on``."""

    connector: Connector
    operation: str
    spec: Operation
    database: Pool
    worker: UUID
    begins: Callable[[bool], None]
    heard: Callable[[Collection[Delivery]], None]
    goes_on: Callable[[], bool]

    async def carry(self, due: Sequence[Due]) -> Results:
        """What became of each; one that never left is not there, and of one that may not leave there is None: another
        worker has to do with it, or somebody cancelled it. Raises psycopg.Error before anything has left."""
        results: Results = {}
        if self.spec.in_doubt is not InDoubt.REPEAT:
            results |= await self._settle_doubts([each for each in due if each.doubtful])
        rest = [each for each in due if each.effect.id not in results]
        # Also what had another rule when it left before: it may have been cancelled; and what makes a record, of which
        # its vendor may tell before it answers.
        told = self.spec.in_doubt is not InDoubt.REPEAT
        marked = [each for each in rest if told or each.doubtful or (each.homed and self.spec.makes_ids)]
        if marked:
            async with self.database.connection() as connection:
                leaving = await mark(connection, marked, self.worker)
            results |= {each.effect.id: None for each in marked if each.effect.id not in leaving}
        due = [each for each in rest if each.effect.id not in results]
        if due and self.goes_on():
            self.begins(False)
            results |= await self._deliver(due)
        return results

    async def _settle_doubts(self, due: Sequence[Due]) -> Results:
        """What can be found out of effects that have left before, without those that were not done."""
        if not due:
            return {}
        self.begins(False)
        found = await asyncio.gather(*map(self._look_up, due))
        return {each.effect.id: one for each, one in zip(due, found, strict=True) if one is not None}

    async def _look_up(self, due: Due) -> Delivery | None:
        if self.spec.in_doubt is not InDoubt.LOOK_UP or not isinstance(self.connector, LooksUp):
            return Unknown(UNHEARD)
        try:
            async with asyncio.timeout(self.spec.timeout):
                found = await self.connector.look_up(due.effect)
        except (Exception, asyncio.CancelledError) as error:  # a connector's fault leaves it as it is
            if _is_ended(error):
                raise
            return Unknown(f"{UNFOUND}: {type(error).__name__}: {error}")
        match found:
            case Delivered():
                return sound(found)
            case Later():
                return None
            case _:
                return Unknown(UNFOUND)

    async def _deliver(self, due: Sequence[Due]) -> Results:
        result = await self._request(due)
        self.heard(result if isinstance(result, list) else [result])
        if isinstance(result, list):
            return dict(zip((each.effect.id for each in due), result, strict=True))
        if not isinstance(result, Refused) or len(due) == 1:
            return dict.fromkeys((each.effect.id for each in due), result)
        results: Results = {}
        middle = len(due) // 2
        for half in (due[:middle], due[middle:]):
            if self.goes_on():
                self.begins(True)
                results |= await self._deliver(half)
        return results

    async def _request(self, due: Sequence[Due]) -> list[Delivery] | Delivery:
        try:
            async with asyncio.timeout(self.spec.timeout):
                await areach("courier.before")
                answer = await self.connector.deliver(self.operation, [each.effect for each in due])
                await areach("courier.sent")
            if not isinstance(answer, Sequence):
                return sound(answer)
            if len(answer) != len(due):
                raise ValueError(f"{len(answer)} results for {len(due)} effects")
            return [sound(each) for each in answer]
        except (Exception, asyncio.CancelledError) as error:  # a connector's fault settles its effects
            if _is_ended(error):
                raise
            log.warning("courier.connector", connector=self.connector.name, error=repr(error))
            return Unknown(f"{type(error).__name__}: {error}")


def _is_ended(error: BaseException) -> bool:
    """We are to end; else a connector let out that something of its own was cancelled."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def sound(answer: Delivery | object) -> Delivery:
    """What a connector says of one effect, as it can be judged and stored; what is no answer leaves it unknown."""
    match answer:
        case Delivered(vendor_id=None | str()):
            return answer
        case Delivered(vendor_id=made):
            return Delivered(str(made))
        case Refused(reason=str()) | Unknown(reason=str()):
            return answer
        case Later(reason=str(), after=None | int() | float()) | SlowDown(reason=str(), after=None | int() | float()):
            return answer
        case Refused(reason=reason):
            return Refused(str(reason))
        case Later(reason=reason, down=down):
            return Later(str(reason), down=bool(down))
        case SlowDown(reason=reason):
            return SlowDown(str(reason))
        case Unknown(reason=reason):
            return Unknown(str(reason))
    return Unknown(f"the connector answered with {type(answer).__name__}, which says nothing of the effect")
