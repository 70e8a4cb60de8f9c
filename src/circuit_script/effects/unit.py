"""The unit of work of one execution: its writes, held until the execution (or record) has succeeded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.clock import uuid7
from circuit_script.connectors.query import Fields, Query, in_order, matches
from circuit_script.errors import RequestRefused

MAX_IDENTIFIER = 255  # bytes of UTF-8: several stand together in one index row of at most 2,704
WRITES = frozenset({"insert", "update", "upsert", "delete"})


@dataclass(frozen=True, slots=True)
class Write:
    """One row written to the built-in CRM. ``owner`` is the index of the batch's record it belongs to; ``fresh``
    says that its id was made here, so that nobody else can know the record yet; ``if_version`` is the only version of
    the record that it is for; ``seen`` is what its author read of it, where it lives outside."""

    op: str
    object: str
    id: str
    fields: Fields
    owner: int | None
    fresh: bool = False
    if_version: int | None = None
    seen: Fields | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """One message to the outside world. ``needs`` are those before it whose vendors make ids that it uses."""

    id: UUID
    connector: str
    operation: str
    target: str
    payload: Fields
    owner: int | None
    needs: tuple[UUID, ...] = ()
    if_version: str | None = None


@dataclass(slots=True)
class UnitOfWork:
    """Held writes and sends of one execution over the records ``ids`` of ``object``.

    ``contacts`` are the contacts these records belong to, parallel to ``ids``. Of the first ``settled`` records
    nothing more can be held: a checkpoint has committed them.
    """

    object: str
    ids: Sequence[str]
    contacts: Sequence[str | None] = ()
    writes: list[Write] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    settled: int = 0
    _index: Mapping[tuple[str, str], int] = field(init=False)
    _references: list[UUID] = field(default_factory=list)  # of sends whose vendors make ids

    def __post_init__(self) -> None:
        contacts = {("Contact", key): place for place, key in enumerate(self.contacts) if key}
        self._index = contacts | {(self.object, key): place for place, key in enumerate(self.ids)}

    def write(
        self,
        op: str,
        object_: str,
        rows: Sequence[Any],
        owner: int | None,
        versions: Mapping[str, int] | None = None,
        seen: Mapping[str, Fields] | None = None,
    ) -> list[str]:
        """Hold rows; returns their ids. An effect belongs to ``owner``, or to the record whose id it writes. With
        ``versions`` (by id) each is for that version of its record only; ``seen`` is what was read of them, by id.

        Raises RequestRefused when a row is not a mapping or lacks an id or a version that it needs.
        """
        if op not in WRITES:
            raise RequestRefused(f"unknown operation {op!r}.")
        if "\0" in object_ or not 0 < len(object_.encode()) <= MAX_IDENTIFIER:
            raise RequestRefused(f"{object_[:80]!r} is no name of an object.")
        self._must_be_open(owner)
        held = [self._held(op, object_, row, owner, place) for place, row in enumerate(rows)]
        if versions is not None:
            held = [_versioned(each, versions) for each in held]
        if seen:
            held = [replace(each, seen=seen[each.id]) if each.id in seen else each for each in held]
        self.writes += held
        return [each.id for each in held]

    def _held(self, op: str, object_: str, row: Any, owner: int | None, place: int) -> Write:
        if not isinstance(row, dict):
            raise RequestRefused(f"{op} {object_}: row {place} is a {type(row).__name__}, not a mapping.")
        identifier = row.get("id")
        fresh = identifier in (None, "")
        if fresh:
            if op not in ("insert", "upsert"):
                raise RequestRefused(f"{op} {object_}: row {place} has no id.")
            identifier = uuid7()
        identifier = str(identifier)
        if "\0" in identifier or len(identifier.encode()) > MAX_IDENTIFIER:
            raise RequestRefused(f"{op} {object_}: row {place} has an id that cannot be stored.")
        fields = {name: value for name, value in row.items() if name != "id"}
        if owner is None:
            owner = self._index.get((object_, identifier))
        if owner is None and "contactId" in fields:
            owner = self._index.get(("Contact", str(fields["contactId"])))
        return Write(op, object_, identifier, fields, self._open(owner), fresh)

    def send(
        self,
        connector: str,
        operation: str,
        target: str,
        payload: Fields,
        owner: int | None,
        *,
        makes_id: bool = False,
        if_version: str | None = None,
    ) -> UUID:
        """Hold one message; returns its id, which is its idempotency key.

        Of one that ``makes_id``, it is also the reference to what its vendor makes: wherever its text stands in a
        later message, the real id will stand when that leaves.
        """
        self._must_be_open(owner)
        needs: tuple[UUID, ...] = ()
        if self._references:
            text = msgspec.json.encode([target, payload], enc_hook=str)
            needs = tuple(each for each in self._references if str(each).encode() in text)
        held = Send(uuid7(), connector, operation, target, payload, self._open(owner), needs, if_version)
        self.sends.append(held)
        if makes_id:
            self._references.append(held.id)
        return held.id

    def _must_be_open(self, owner: int | None) -> None:
        if owner is not None and owner < self.settled:
            raise RequestRefused(
                "this record is settled: a checkpoint has committed its outcome.",
                cure="Call context.checkpoint after the last thing that is done for it.",
            )

    def _open(self, owner: int | None) -> int | None:
        """Whose an effect is: the only record's if there is one; nobody's when its record is settled."""
        if owner is None and len(self.ids) == 1:
            owner = 0
        return None if owner is not None and owner < self.settled else owner

    @property
    def unattributed(self) -> bool:
        """True when something would leave only if every record succeeded."""
        return self.orphans > 0

    @property
    def orphans(self) -> int:
        """How many effects belong to nobody."""
        held: Sequence[Write | Send] = (*self.writes, *self.sends)
        return sum(each.owner is None for each in held)

    def surviving(self, failed: Collection[int], *, whole: bool) -> tuple[list[Write], list[Send]]:
        """What may leave when the records ``failed`` did not succeed; what belongs to nobody leaves with a ``whole``
        batch only: when each record has succeeded, also those that a checkpoint has settled."""

        def leaves(owner: int | None) -> bool:
            return whole if owner is None else owner not in failed

        return [each for each in self.writes if leaves(each.owner)], [each for each in self.sends if leaves(each.owner)]

    def departing(self, upto: int, failed: Collection[int]) -> tuple[list[Write], list[Send]]:
        """What leaves at a checkpoint: effects of the records up to ``upto``, without those of the ``failed``."""
        return (
            [
                each
                for each in self.writes
                if each.owner is not None and each.owner <= upto and each.owner not in failed
            ],
            [each for each in self.sends if each.owner is not None and each.owner <= upto and each.owner not in failed],
        )

    def forget(self, upto: int) -> None:
        """Let go of what belongs to the records up to ``upto``: it is committed, or their failure's."""
        self.writes = [each for each in self.writes if each.owner is None or each.owner > upto]
        self.sends = [each for each in self.sends if each.owner is None or each.owner > upto]

    def overlay_rows(self, object_: str, ids: Sequence[str], rows: Sequence[Fields | None]) -> list[Fields | None]:
        """Stored rows, parallel to ``ids``, as they look with the pending writes laid over them."""
        pending = self._pending(object_)
        if not pending:
            return list(rows)
        return [_applied(row, key, pending.get(key, ())) for key, row in zip(ids, rows, strict=True)]

    def pending(self, object_: str) -> list[str]:
        """The ids of records of this object that have pending writes."""
        return list(self._pending(object_))

    def unread(self, object_: str, rows: Sequence[Fields]) -> list[str]:
        """Ids with pending writes that ``rows`` lack, whose stored state an overlay needs too."""
        read = {str(row["id"]) for row in rows}
        return [key for key, writes in self._pending(object_).items() if key not in read and writes[0].op != "insert"]

    def overlay_query(self, query: Query, rows: Sequence[Fields]) -> list[Fields]:
        """Query results with pending writes laid over: changed rows that no longer match are dropped, and those that
        match by what is pending are added: where the query has an order, in their places, else at the end."""
        pending = self._pending(query.object)
        if not pending:
            return list(rows[: query.limit])
        shown = {str(row["id"]): _applied(row, str(row["id"]), pending.get(str(row["id"]), ())) for row in rows}
        for key, writes in pending.items():
            if key not in shown and writes[0].op in ("insert", "upsert"):
                shown[key] = _applied(None, key, writes)
        matching = [row for row in shown.values() if row is not None and matches(row, query.where)]
        if query.order_by:
            matching = in_order(matching, query.order_by)
        return matching[: query.limit]

    def _pending(self, object_: str) -> dict[str, list[Write]]:
        pending: dict[str, list[Write]] = {}
        for each in self.writes:
            if each.object == object_:
                pending.setdefault(each.id, []).append(each)
        return pending


def _versioned(write: Write, versions: Mapping[str, int]) -> Write:
    if write.id not in versions:
        raise RequestRefused(
            f"{write.op} {write.object}: there is no version of {write.id!r}.",
            cure="Give if_version the records as they were read, one for each row.",
        )
    return replace(write, if_version=versions[write.id])


def _applied(row: Fields | None, key: str, writes: Sequence[Write]) -> Fields | None:
    for each in writes:
        match each.op:
            case "delete":
                row = None
            case "update" if row is None:
                row = None
            case _:
                row = {**(row or {}), **each.fields, "id": key}
    return row
