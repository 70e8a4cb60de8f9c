"""Writes of records that live in a CRM outside: one effect each, beside the mirror that the outcome writes.

The mirror (circuit.records) holds what was last seen and written. A write that would change nothing of it is no effect;
what comes back when a vendor refuses one is in the database's hands (circuit.mirror).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import Fields
from circuit_script.db.binary_arrays import bigints, jsonbs, smallints, texts, uuids
from circuit_script.effects.order import order_hash
from circuit_script.effects.unit import Send, Write

LOCAL = "local"  # the home of what lives here
COLUMNS = (
    uuids, texts, uuids, bigints, smallints, bigints, texts, texts, texts, texts, jsonbs, smallints, texts, jsonbs,
    bigints, jsonbs, jsonbs,
)  # fmt: skip

Home = Callable[[str, str], str]
"""The name of the connector that keeps an object of a tenant: LOCAL for the built-in CRM."""

# As text, an id of ours: a reference is one.
_OURS = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_encode = msgspec.json.Encoder(enc_hook=str).encode


@dataclass(frozen=True, slots=True)
class Made:
    """Who makes effects: one settlement, as far as they say so."""

    execution: UUID
    tenant: str
    release: int
    lane: int
    depth: int


@dataclass(slots=True)
class Homed:
    """The effects of writes that live outside, as rows of COLUMNS but for the encoding; and which effects use what may
    be references: (effect, need)."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    uses: list[tuple[UUID, UUID]] = field(default_factory=list)
    ids: list[UUID] = field(default_factory=list)

    def writes(
        self, made: Made, home: Home, writes: Sequence[Write], seen: Mapping[tuple[str, str], Any]
    ) -> list[UUID]:
        """Add the writes of objects that live outside, in their order; the ids of their effects. ``seen`` is what
        events brought in the same outcome: (fields, the event's id) by object and id."""
        laid: dict[tuple[str, str], Fields] = {}
        ids = []
        for write in merged([each for each in writes if home(made.tenant, each.object) != LOCAL]):
            key = write.object, write.id
            effect = UUID(write.id) if write.fresh else uuid7()
            payload: Fields = {"id": write.id} if write.op == "delete" else {"id": write.id, "fields": write.fields}
            body = _encode(payload)
            fields, seq = seen.get(key, (None, 0))
            self.uses += [(effect, need) for need in references(body) if need != effect]
            self.rows.append(
                (effect, made.tenant, made.execution, made.release, made.lane, order_hash(made.tenant, write.id),
                 home(made.tenant, write.object), write.op, write.object, write.id, payload, made.depth,
                 None if write.if_version is None else str(write.if_version), fields, seq, write.seen,
                 dict(laid[key]) if key in laid else None)
            )  # fmt: skip
            laid.setdefault(key, {}).update(write.fields)
            ids.append(effect)
        self.ids += ids
        return ids

    def sends(self, sends: Sequence[Send]) -> None:
        """Messages may tell of records that are being made."""
        self.uses += [(each.id, need) for each in sends for need in references(_encode([each.target, each.payload]))]


def merged(writes: Sequence[Write]) -> list[Write]:
    """One request where an update follows a write of the same record by the same owner: unless it is for a version, or
    tells of another record that may be made meanwhile."""
    rows: list[Write] = []
    last: dict[tuple[str, str], int] = {}
    for each in writes:
        place = last.get((each.object, each.id))
        if place is not None and each.op == "update" and each.if_version is None and rows[place].if_version is None:
            before = rows[place]
            if before.op != "delete" and before.owner == each.owner and not references(_encode(each.fields)):
                rows[place] = replace(before, fields={**before.fields, **each.fields})
                continue
        last[each.object, each.id] = len(rows)
        rows.append(each)
    return rows


def references(body: bytes) -> list[UUID]:
    """What in it may be the id of an effect of ours."""
    return [UUID(each.decode()) for each in dict.fromkeys(_OURS.findall(body))]
