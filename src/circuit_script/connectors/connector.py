"""What a connector is: typed access to one vendor's API, behind one protocol.

Reads answer now (they are calls); writes arrive as effects, in bulk, each with an idempotency key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

Fields = dict[str, Any]


class InDoubt(StrEnum):
    """What to do with an effect of which nobody knows whether the vendor has done it."""

    REPEAT = "repeat"
    LOOK_UP = "look_up"
    ASK_A_PERSON = "ask_a_person"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one kind of write promises. ``bulk`` is the most effects in one request."""

    in_doubt: InDoubt
    bulk: int = 1
    timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One write to the outside world. ``id`` is its idempotency key; ``depth`` is how many executions, one causing the
    next, led to it."""

    id: UUID
    tenant: str
    operation: str
    target: str
    record: str | None
    payload: Fields
    attempts: int = 0
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The vendor has done it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The vendor said no, for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """Not done, and may be tried again after so many seconds (None: the courier's own backoff)."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request left and no answer came."""

    reason: str


Delivery = Delivered | Refused | Later | Unknown


class Connector(Protocol):
    """Writes of one vendor. Results are parallel to the effects; raising counts as Unknown for all."""

    name: str
    operations: Mapping[str, Operation]

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]: ...


@dataclass(frozen=True, slots=True)
class Query:
    """``where`` is field → value, or field → list of values; ``order_by`` is a field, ``-field`` descending."""

    object: str
    where: Mapping[str, Any] = field(default_factory=dict)
    order_by: str | None = None
    limit: int = 1000


class CRM(Protocol):
    """A connector that holds records. Reads see one tenant only."""

    async def query(self, tenant: str, query: Query) -> list[Fields]: ...

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]: ...
