"""What a dead letter was about: the record as its delivery brought it, or the effect as it was to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.errors import CircuitError
from circuit_script.events.letters.letter import Letter, rows
from circuit_script.events.sources import SOURCES
from circuit_script.events.sources.circuit import Circuit

Fields = dict[str, Any]

_DELIVERY = """
SELECT d.source, d.account, d.vendor_id, d.received_at, d.headers, d.body
FROM circuit.deliveries d WHERE d.id = %(delivery)s
"""
_RECORD = """
SELECT data FROM circuit.records
WHERE tenant = %(tenant)s AND object = %(object)s AND id = %(record)s AND data <> '{}'
"""
_EFFECT = "SELECT payload, reason FROM circuit.effects WHERE id = %(effect)s"

ERASED = "its payload was erased"
FORGOTTEN = "forgotten"  # the reason of what was erased
GONE = "its delivery is no longer in the ledger"
UNREADABLE = "its delivery cannot be read"


class _Readable(Protocol):
    @staticmethod
    def records(body: bytes) -> list[Fields]: ...


READERS: Mapping[str, _Readable] = {**SOURCES, Circuit.name: Circuit}


@dataclass(frozen=True, slots=True)
class Payload:
    """``fields`` are what the handler (or the vendor) got, None where nobody knows any more; then ``fault`` says why.

    ``stored`` is the record as the built-in CRM has it now, where the delivery is gone. ``original`` is the delivery
    that an edited one was made from.
    """

    fields: Fields | None
    fault: str = ""
    source: str | None = None
    account: str | None = None
    vendor_id: str | None = None
    received_at: datetime | None = None
    stored: Fields | None = None
    original: UUID | None = None

    @property
    def editable(self) -> Fields | None:
        """What an edit begins with."""
        return self.fields if self.fields is not None else self.stored


async def payload_of(connection: Connection, letter: Letter) -> Payload:
    """What is known of it, inside a transaction that may read the letter."""
    if letter.kind == "effect":
        found = await rows(connection, _EFFECT, {"effect": letter.effect})
        if letter.was is not None or not found:
            return Payload(letter.was, "" if letter.was is not None else "its effect is no longer there")
        blank = found[0]["payload"] == {} and found[0]["reason"] == FORGOTTEN
        return Payload(None, ERASED) if blank else Payload(found[0]["payload"])
    found = await rows(connection, _DELIVERY, {"delivery": letter.delivery})
    if not found:
        return Payload(None, GONE, stored=await _stored(connection, letter))
    (row,) = found
    fields, fault = read(row["source"], bytes(row["body"]), letter.ordinal or 0)
    if fields is not None and letter.record is not None:
        fields["id"] = letter.record
    return Payload(
        fields,
        fault,
        source=row["source"],
        account=row["account"],
        vendor_id=row["vendor_id"],
        received_at=row["received_at"],
        stored=await _stored(connection, letter) if fields is None else None,
        original=_original(row["headers"]),
    )


def read(source: str, body: bytes, ordinal: int) -> tuple[Fields | None, str]:
    """The record in a delivery's body; or None, and why it cannot be read."""
    several, fault = read_all(source, body)
    if ordinal < len(several):
        return several[ordinal], ""
    return None, fault or f"{UNREADABLE}: it has no record {ordinal}"


def read_all(source: str, body: bytes) -> tuple[list[Fields], str]:
    """The records in a delivery's body; or none, and why it cannot be read."""
    try:
        return READERS[source].records(body), ""
    except (LookupError, TypeError, ValueError, CircuitError) as error:
        return [], f"{UNREADABLE}: {error}" if body else ERASED


async def _stored(connection: Connection, letter: Letter) -> Fields | None:
    if letter.object is None or letter.record is None:
        return None
    values = {"tenant": letter.tenant, "object": letter.object, "record": letter.record}
    found = await rows(connection, _RECORD, values)
    return {**found[0]["data"], "id": letter.record} if found else None


ORIGINAL = "circuit-original"  # a header of an edited copy: the delivery it was made from


def _original(headers: Mapping[str, Any]) -> UUID | None:
    try:
        return UUID(headers[ORIGINAL])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
