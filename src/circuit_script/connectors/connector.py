"""What a connector is: typed access to one vendor's API, behind one protocol.

Reads answer now (they are calls; what they ask is a `connectors.query.Query`); writes arrive as effects, in bulk, each
with an idempotency key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from circuit_script.connectors.query import Fields, Page, Plan, Query
from circuit_script.schemas.facts import FieldFacts

__all__ = [
    "CRM",
    "Connector",
    "Delivered",
    "Delivery",
    "Describes",
    "Effect",
    "Fields",
    "InDoubt",
    "Later",
    "LooksUp",
    "Operation",
    "Page",
    "Plan",
    "Query",
    "Rate",
    "Refused",
    "SlowDown",
    "Stored",
    "Unknown",
]


class InDoubt(StrEnum):
    """What to do with an effect of which nobody knows whether the vendor has done it."""

    REPEAT = "repeat"
    LOOK_UP = "look_up"
    ASK_A_PERSON = "ask_a_person"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``calls`` requests in ``seconds``, for each tenant by itself; ``burst`` of them at once, all unless said.

    ``of`` says what is counted together: the calls of one operation, of one operation to one target, or all of the
    connector that say so.
    """

    calls: float
    seconds: float = 1.0
    burst: float | None = None
    of: Literal["operation", "target", "connector"] = "operation"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one kind of write promises.

    ``bulk`` is the most effects in one request, all of one tenant and target; ``rate`` is what its vendor takes;
    ``makes_ids``: it makes records whose ids its vendor chooses, and tells (``Delivered.vendor_id``); ``if_version``:
    it can be told the version of a record that alone it is to change. ``irreversible``: what it does cannot be taken
    back, as it reaches people or others, costs money, or ends a record; ``irreversible_for`` are the targets for which
    alone that holds. Where a model chose it, after untrusted text was read, it is refused (`execution.broker.choices`).
    """

    in_doubt: InDoubt
    bulk: int = 1
    timeout: float = 15.0
    rate: Rate | None = None
    makes_ids: bool = False
    if_version: bool = False
    irreversible: bool = False
    irreversible_for: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Effect:
    """One write to the outside world. ``id`` is its idempotency key; ``depth`` is how many executions, one causing the
    next, led to it; ``if_version`` is the only version of its record that it is for, None for any; ``traceparent`` is
    the header by which its vendor goes on with its trace."""

    id: UUID
    tenant: str
    operation: str
    target: str
    record: str | None
    payload: Fields
    attempts: int = 0
    depth: int = 0
    if_version: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The vendor has done it. ``vendor_id`` is the id of the record that it made."""

    vendor_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The vendor said no, for good, and has done nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """Not done, and may be tried again after so many seconds (None: the courier's own backoff). ``down``: it is not
    about this effect, the vendor cannot do anything now."""

    reason: str
    after: float | None = None
    down: bool = False


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Not done: the vendor takes nothing more of this tenant for so many seconds (None: the courier's own pause)."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request left and no answer came."""

    reason: str


Delivery = Delivered | Refused | Later | SlowDown | Unknown


class Connector(Protocol):
    """Writes of one vendor. Results are parallel to the effects, which are of one tenant and target, or else one result
    that speaks of the whole request: a bulk that is refused so is tried in halves, until what is bad stands alone.
    Raising counts as Unknown for all."""

    name: str
    operations: Mapping[str, Operation]

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery] | Delivery: ...


@runtime_checkable
class LooksUp(Protocol):
    """A connector that can find out what became of an effect: done, not done (Later), or None, which is not known."""

    async def look_up(self, effect: Effect) -> Delivered | Later | None: ...


@runtime_checkable
class Describes(Protocol):
    """A connector that can say which fields the account of a tenant has: those of an object, by our names. It asks anew
    each time. Raises RequestRefused for an object of which the vendor has no list, and as its API does."""

    async def described(self, tenant: str, object_: str) -> list[FieldFacts]: ...


class Stored(Fields):
    """A record as it is stored. ``version`` changes whenever it is written."""

    __slots__ = ("version",)

    def __init__(self, fields: Fields, version: int) -> None:
        super().__init__(fields)
        self.version = version


class CRM(Protocol):
    """A connector that holds records. Reads see one tenant only; those of one that knows versions are ``Stored``.

    Rows are flat, with ``id`` as text and the schema's field names. Whoever reads holds every row against the query
    again (`matches`), so a page may have rows that do not match; it may not lack one that does.
    """

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        """The next rows of a query, ``size`` at most, in its order where ``explain`` says that they are ``ordered``.

        Pages may stop at ``query.limit`` rows only where the vendor filters (and orders) all by itself; otherwise they
        go on to the end. Raises QueryRefused for what cannot be asked, and as its API does.
        """
        ...

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        """The records with these ids, parallel to them, None for what is not there."""
        ...

    def explain(self, query: Query) -> Plan:
        """How ``page`` would answer, without asking anybody."""
        ...
