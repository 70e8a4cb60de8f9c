"""The call behind a settlement: what the ledger keeps of it, and the answer that its Idempotency-Key will get again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from circuit_script.db.binary_arrays import Packed, byteas, jsonbs, smallints, texts, uuids

COMMITTED = "CS003"  # this call has been committed before: the answer to its first commit was lost
TAKEN = "CS002"  # another execution holds the Idempotency-Key by now

_CALLS = (uuids, uuids, texts, smallints, texts, texts, jsonbs, byteas, texts, texts)
_KEYS = (texts, texts, texts, uuids, smallints, jsonbs, byteas)
_PARAMETERS = len(_CALLS) + len(_KEYS)


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """An Idempotency-Key and the answer it gets: ``status`` 0 releases it. ``headers`` are JSON."""

    endpoint: str
    key: str
    status: int = 0
    headers: bytes = b"[]"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an endpoint. ``status`` is succeeded or failed; ``headers`` are JSON."""

    delivery: UUID
    endpoint: str
    headers: bytes
    body: bytes
    status: str
    reason: str | None = None
    key: KeyHeld | None = None


def condition(first: int) -> str:
    """What a settlement of calls is made under; its placeholders are numbered from ``first``."""
    return f"circuit.answer({', '.join(f'${n}' for n in range(first, first + _PARAMETERS))})"


def parameters(calls: Sequence[tuple[UUID, str, int, Call]]) -> list[Packed]:
    """What `condition` takes, for calls with their execution, tenant and handler."""
    rows = [
        (call.delivery, execution, tenant, handler, call.endpoint, call.key.key if call.key else None, call.headers,
         call.body, call.status, call.reason)
        for execution, tenant, handler, call in calls
    ]  # fmt: skip
    keys = [
        (tenant, call.key.endpoint, call.key.key, execution, call.key.status, call.key.headers, call.key.body)
        for execution, tenant, _, call in calls
        if call.key is not None
    ]
    return [*_packed(rows, _CALLS), *_packed(keys, _KEYS)]


def _packed(rows: Sequence[tuple[Any, ...]], packers: Sequence[Callable[[list[Any]], Packed]]) -> list[Packed]:
    columns = zip(*rows, strict=True) if rows else [()] * len(packers)
    return [pack(list(column)) for pack, column in zip(packers, columns, strict=True)]
