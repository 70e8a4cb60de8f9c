"""What is known of records: as they were seen and written last, with what still waits to be handled; and whether a row
of the vendor says anything else."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from circuit_script.connectors.connector import Fields
from circuit_script.connectors.values import moment
from circuit_script.db.pool import Connection
from circuit_script.effects.echoes import CUSTOM_FIELDS, same
from circuit_script.effects.order import order_hash
from circuit_script.errors import CircuitError
from circuit_script.events.letters.payload import READERS
from circuit_script.events.sources.circuit import Circuit

CLOCKS = timedelta(seconds=5)  # by which a vendor's clock may differ from ours without anything being lost or repeated
LAG = timedelta(seconds=60)  # for which a vendor's search may still give a record as it was before
LONGEST = timedelta(days=1)  # that an answer of the vendor about our own write counts as news of the record
LAST = 20  # events of a record that are looked at
TAGS = "tags"
NO_TWINS: Mapping[str, str] = MappingProxyType({})
_PHONE = re.compile(r"\+?[\d\s().\-/]{3,60}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,30}(\.\d{1,30})?", re.ASCII)
_FIRST, _DAY = datetime(1, 1, 1, tzinfo=UTC), timedelta(days=1)

RECORDS = """
SELECT r.id, r.data, r.seq, r.deleted FROM circuit.records r
WHERE r.tenant = %(tenant)s AND r.object = %(object)s AND r.id = ANY(%(ids)s)
"""
EVENTS = """
SELECT w.record, e.id, e.event, e.ordinal, d.source, d.body, d.received_at FROM unnest(%(ids)s::text[]) AS w (record)
CROSS JOIN LATERAL (
    SELECT e.id, e.event, e.ordinal, e.delivery FROM circuit.events e
    WHERE e.tenant = %(tenant)s AND e.record = w.record AND e.object = %(object)s
    ORDER BY e.id DESC LIMIT %(last)s) e
JOIN circuit.deliveries d ON d.id = e.delivery
ORDER BY e.id
"""
# Our own writes: those that wait for the vendor, and those that it has done lately.
WRITES = """
SELECT e.record, e.operation, coalesce(e.payload -> 'fields', '{}'), NULL::timestamptz FROM circuit.effects e
WHERE e.status = 'pending' AND e.tenant = %(tenant)s AND e.order_hash = ANY(%(hashes)s) AND e.target = %(object)s
AND e.connector = %(connector)s AND e.record = ANY(%(ids)s)
UNION ALL
SELECT e.record, e.operation, coalesce(e.payload -> 'fields', '{}'), NULL FROM circuit.effects e
WHERE e.status = 'in_doubt' AND e.tenant = %(tenant)s AND e.target = %(object)s AND e.connector = %(connector)s
AND e.record = ANY(%(ids)s)
UNION ALL
SELECT e.record, e.operation, coalesce(e.payload -> 'fields', '{}'), e.settled_at FROM circuit.effects e
WHERE e.status = 'delivered' AND e.settled_at > %(since)s AND e.tenant = %(tenant)s AND e.target = %(object)s
AND e.connector = %(connector)s AND e.record = ANY(%(ids)s)
"""


class Verdict(StrEnum):
    """What a row of the vendor is, beside what is known. AGAIN: it may be older, and is to be read again by its id."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "changed"
    AGAIN = "again"


@dataclass(slots=True)
class Known:
    """One record as it is known. ``last`` is the id of its last event that is not ours, ``heard_at`` when anything was
    heard of it from outside (also that a write of ours was done); ``writing`` are fields that we may be writing now."""

    fields: Fields | None = None
    gone: bool = False
    deleting: bool = False
    last: int = 0
    heard_at: datetime | None = None
    writing: set[str] = field(default_factory=set)

    def hear(self, at: datetime) -> None:
        self.heard_at = at if self.heard_at is None else max(self.heard_at, at)


async def known_of(
    connection: Connection, tenant: str, connector: str, object_: str, rows: Mapping[str, datetime], read_at: datetime
) -> dict[str, Known]:
    """What is known of these records. ``rows`` are their ids with the moments of their changes as the vendor, asked at
    ``read_at``, says. Raises psycopg.Error."""
    since = max(min([read_at, *rows.values()]), read_at - LONGEST) - CLOCKS  # in this order: it may be the year 1
    values = {
        "tenant": tenant,
        "connector": connector,
        "object": object_,
        "ids": list(rows),
        "hashes": [order_hash(tenant, each) for each in rows],
        "since": since,
        "last": LAST,
    }
    found = {each: Known() for each in rows}
    seqs: dict[str, int] = {}
    for id_, data, seq, deleted in await _rows(connection, RECORDS, values):
        found[id_].fields, found[id_].gone, seqs[id_] = (None if deleted else dict(data)), deleted, seq
    for id_, event, kind, ordinal, source, body, at in await _rows(connection, EVENTS, values):
        each = found[id_]
        if source != Circuit.name:
            each.last = event
            each.hear(at)
        if event > seqs.get(id_, 0):  # the record does not show it yet
            each.gone = kind == "afterDelete"
            each.fields = None if each.gone else {**(each.fields or {}), **brought(source, body, ordinal)}
    for id_, operation, fields, at in await _rows(connection, WRITES, values):
        each = found[id_]
        if at is not None:
            each.hear(at)
        if at is None or at >= read_at:
            each.writing |= fields.keys()
            each.deleting = each.deleting or operation == "delete"
    return found


def brought(source: str, body: bytes, ordinal: int) -> Fields:
    """The record as an event's delivery has it; nothing where that cannot be read."""
    with suppress(LookupError, TypeError, ValueError, CircuitError):
        return dict(READERS[source].records(bytes(body))[ordinal])
    return {}


def judge(
    row: Fields, known: Known, stamp: str, read_at: datetime, *, sure: bool, twins: Mapping[str, str] = NO_TWINS
) -> Verdict:
    """What a row is that was asked for at ``read_at``; ``stamp`` is the field that says when it was changed. ``sure``:
    it was read by its id, not found by a search. ``twins`` as in `differs`."""
    if known.deleting:
        return Verdict.KNOWN
    changed = moment_of(row.get(stamp))
    if known.fields is not None:
        before = moment_of(known.fields.get(stamp))
        if before is not None and changed is not None and before > changed:
            return Verdict.KNOWN  # it is older than what was told: what it is now comes with a later stamp
        told = known.heard_at is not None and changed is not None and known.heard_at + CLOCKS >= changed
        if not differs(row, known.fields, {stamp, *known.writing}, told=told, twins=twins):
            return Verdict.KNOWN
    newest = read_at if sure else read_at - LAG
    if (known.heard_at is not None and known.heard_at >= newest) or (known.gone and not sure):
        return Verdict.AGAIN
    return Verdict.NEW if known.fields is None else Verdict.CHANGED


def differs(
    row: Fields,
    known: Fields,
    aside: Collection[str],
    *,
    told: bool = False,
    twins: Mapping[str, str] = NO_TWINS,
) -> bool:
    """Whether a row says anything that is not known. ``told``: a webhook told of the record after it was changed so,
    and fields of which nothing is known are those that webhooks leave out. ``twins``: names under which a row says the
    same value, one → other; what is known has it under one of them, and then that one counts."""
    for name, value in row.items():
        if name == "id" or name in aside:
            continue
        twin = twins.get(name)
        if twin is not None and twin in known and known.get(name) is None:
            continue  # it is known under its other name, which the row has, too
        if name in known:
            if told and twin is not None and twin in known and alike(row.get(twin), known[twin], twin):
                continue
            if not alike(value, known[name], name) and not (name == CUSTOM_FIELDS and _entries(value, known)):
                return True
        elif not told and not _empty(value) and not (name == CUSTOM_FIELDS and _entries(value, known)):
            return True
    return False


def alike(one: Any, other: Any, name: str = "") -> bool:
    """Equal, or both nothing, or the same in another form: a moment; a number and its text; tags in another order; in a
    field of phone numbers the same digits (and plus), however they are set apart."""
    if same(one, other) or (_empty(one) and _empty(other)):
        return True
    if name == TAGS and isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    if "phone" in name.lower() and (dialled := _dialled(one)) is not None:
        return dialled == _dialled(other)
    if isinstance(one, str) is not isinstance(other, str) and (number := _number(one)) is not None:
        return number == _number(other)
    first = moment(one)
    return first is not None and first == moment(other)


def moment_of(value: Any) -> datetime | None:
    """A moment as the vendor writes it."""
    found = moment(value)
    return None if found is None else _FIRST + (timedelta(microseconds=found) - _DAY)


def _entries(value: Any, known: Fields) -> bool:
    """Whether each custom field of a list, ``[{"id": …, "value": …}]``, is known: in a list, or by its own name."""
    before = known.get(CUSTOM_FIELDS)
    listed = before if isinstance(before, list) else []
    return isinstance(value, list) and all(
        each in listed or (isinstance(each, dict) and alike(each.get("value"), known.get(str(each.get("id")))))
        for each in value
    )


def _dialled(value: Any) -> str | None:
    """A phone number without what only sets its digits apart; None for what is none."""
    if not isinstance(value, str) or _PHONE.fullmatch(value.strip()) is None:
        return None
    return re.sub(r"[^\d+]", "", value)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


async def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
    return await (await connection.execute(query.encode(), values)).fetchall()
