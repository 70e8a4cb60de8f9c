"""What a candidate did, beside what the live release did with the same: the differences, record by record.

Effects are compared as they would leave: all writes of one record together, field by field, and messages by where they
go. What an execution makes has another id each time: such ids are compared by whose they are and in which order they
were made.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from circuit_script.events.recordings import Answer, Ended, Said, Wrote
from circuit_script.execution.outcome import JOBS

MOST = 20  # differences that are kept of an execution
LARGEST = 2048  # bytes of one, as JSON
APART = 60.0  # seconds that the moment for which a job is due may differ: each execution counts from its own clock
_Message = dict[str, Any]
NOTHING = "nothing"  # in the place of a value that is not there
HEADERS = ("content-type", "location", "retry-after")  # of answers; others name the execution or the moment
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# What of a reason is of that one run: how far a limit was exceeded and in which line, and where a thing lay in memory.
_EXCEEDED = re.compile(r"^(limit \w+ exceeded)\b.*", re.DOTALL)
_PLACE = re.compile(r"(?<= at )0x[0-9a-f]+|, at [^\s:]+:\d+$")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same. ``record`` is the record that it belongs to, None for the execution as a whole;
    ``what`` is "outcome", "answer", "Contact 7" or "email sales@acme.example"; ``field`` is empty for all of it."""

    record: str | None
    what: str
    field: str
    live: Any
    candidate: Any


@dataclass(frozen=True, slots=True)
class Compared:
    """An execution of ``records`` records, of which ``different`` differ: all of them by what belongs to none of them,
    as that is the whole batch's. An answered request counts as one."""

    records: int
    different: int = 0
    differences: Sequence[Difference] = ()


@dataclass(frozen=True, slots=True)
class _Due:
    """When a job is due, or a record tried again: so many seconds after its execution began, which is that moment."""

    after: float
    moment: float


@dataclass(slots=True)
class _Side:
    """What one of the two did: for each record, what it wrote and what it said, with ids that both know."""

    ids: Sequence[str]
    ended: Ended
    since: float  # when it began; jobs are due so long after it
    names: dict[str, str] = field(default_factory=dict)
    writes: dict[tuple[str | None, str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    sends: dict[tuple[str | None, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    # What comes of those that are written for several records: the last one counts.
    shared: dict[tuple[str, str], tuple[dict[str, Any], set[str | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made: Counter[tuple[str | None, str]] = Counter()
        for id_, kind, owner in (
            *((each.id, each.object, each.owner) for each in self.ended.writes if each.fresh),
            *((each.id, f"{each.connector} {each.target}", each.owner) for each in self.ended.sends),
        ):
            if id_ not in self.names:
                made[self.owner(owner), kind] += 1
                self.names[id_] = f"new {kind} {made[self.owner(owner), kind]}"
        for write in self.ended.writes:
            self._write(write)
        for send in self.ended.sends:
            self._send(send)

    def owner(self, place: int | None) -> str | None:
        return self.ids[place] if place is not None and place < len(self.ids) else None

    def _write(self, write: Wrote) -> None:
        key = (self.owner(write.owner), write.object, self.names.get(write.id, write.id))
        op, fields = self.writes.get(key, ("", {}))
        if write.op == "delete":
            self.writes[key] = "delete", {}
            return
        if op == "delete":  # what it had before is gone
            op = f"delete, {write.op}"
        said = self.plain(write.fields)
        self.writes[key] = op or write.op, {**fields, **said}
        if write.id not in self.names:
            shared = self.shared.setdefault(key[1:], ({}, set()))
            shared[0].update(said)
            shared[1].add(key[0])

    def _send(self, send: Said) -> None:
        payload = dict(self.plain(send.payload))
        if send.connector == JOBS and isinstance(payload.get("due"), int | float):
            payload["due"] = _Due(round(payload["due"] - self.since, 3), payload["due"])
        key = (self.owner(send.owner), send.connector, self.named(send.target))
        self.sends.setdefault(key, []).append({"operation": send.operation, **payload})

    def plain(self, value: Any) -> Any:
        return self.named(msgspec.to_builtins(value, enc_hook=str))

    def named(self, value: Any) -> Any:
        """The same, with the ids that were made here as both sides know them."""
        match value:
            case str():
                return _ID.sub(lambda found: self.names.get(found[0], found[0]), value)
            case list():
                return [self.named(each) for each in value]
            case dict():
                return {self.named(key): self.named(each) for key, each in value.items()}
        return value


def compare(
    ids: Sequence[str],
    live: Ended,
    candidate: Ended,
    *,
    ignore: Collection[str] = (),
    began: tuple[float, float] = (0.0, 0.0),
) -> Compared:
    """Compare what two executions did with the records of these ids. ``ignore`` names what may differ:
    "Contact.scored_at", "email.sales@acme.example.subject", "answer.request_id", with all below it. ``began`` is when
    each of the two began."""
    one, other = _Side(ids, live, began[0]), _Side(ids, candidate, began[1])
    found = [
        each
        for each in (*_outcomes(one, other), *_writes(one, other), *_sends(one, other), *_answers(live, candidate))
        if not _ignored(each, ignore)
    ]
    named, records = {each.record for each in found}, len(ids) or 1
    return Compared(records, records if None in named else len(named), tuple(found))


def bounded(differences: Sequence[Difference]) -> list[list[Any]]:
    """As they are kept: not too many, and none too large."""
    return [
        [each.record, each.what[:500], each.field[:500], _short(each.live), _short(each.candidate)]
        for each in differences[:MOST]
    ]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, _Due) and isinstance(other, _Due):
        return _near(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(each, other[key]) for key, each in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))  # NaN is like NaN


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Its leaves by their path, "to.0.name"; what is empty is a leaf, too."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    if not items:
        return {path: value} if path or value not in ({}, []) else {}
    return {
        name: leaf for key, each in items for name, leaf in flat(each, f"{path}.{key}" if path else str(key)).items()
    }


def _outcomes(one: _Side, other: _Side) -> Iterator[Difference]:
    """Records that failed on one side only or for another reason; where there are none, how it ended as a whole."""
    places = sorted({*one.ended.errors, *other.ended.errors, *one.ended.decided, *other.ended.decided})
    for place in places:
        left, right = _end(one, place), _end(other, place)
        if _of_any_run(left) != _of_any_run(right) and not _as_late(one, other, place):
            yield Difference(one.owner(place), "outcome", "", left, right)
    left, right = _whole(one), _whole(other)
    if not places and _of_any_run(left) != _of_any_run(right):
        yield Difference(None, "outcome", "", left, right)


def _end(side: _Side, place: int) -> str:
    if place in side.ended.decided:
        after = side.ended.decided[place]
        return "cancelled" if after is None else f"put off for {after:g} s"
    if place in side.ended.errors:
        return f"failed: {side.named(side.ended.errors[place])}"
    return "succeeded"


def _whole(side: _Side) -> str:
    ended = side.ended
    return f"{ended.status}: {side.named(ended.reason)}" if ended.reason else ended.status


def _of_any_run(end: str) -> str:
    """An end as it would be again."""
    kind, colon, reason = end.partition(": ")
    lasting = _PLACE.sub("", _EXCEEDED.sub(r"\1", reason))
    return f"{kind}{colon}{lasting}"


def _as_late(one: _Side, other: _Side, place: int) -> bool:
    """Whether both put a record off, for as long or until the same moment."""
    left, right = one.ended.decided.get(place), other.ended.decided.get(place)
    if left is None or right is None:
        return False
    return _near(_Due(left, one.since + left), _Due(right, other.since + right))


def _writes(one: _Side, other: _Side) -> Iterator[Difference]:
    for key in dict.fromkeys((*one.writes, *other.writes)):
        record, object_, id_ = key
        what = f"{object_} {id_}"
        left, right = one.writes.get(key), other.writes.get(key)
        if left is None or right is None or left[0] != right[0]:
            yield Difference(record, what, "", _told(left), _told(right))
            continue
        yield from _fields(record, what, left[1], right[1])
    for shared, (fields, owners) in one.shared.items():
        there, others = other.shared.get(shared, ({}, set()))
        each_same = all(
            same(one.writes.get((owner, *shared), ("", {}))[1], other.writes.get((owner, *shared), ("", {}))[1])
            for owner in owners | others
        )
        if len(owners) > 1 and each_same:  # then only who wrote last can differ
            yield from _fields(None, " ".join(shared), fields, there)


def _told(write: tuple[str, Mapping[str, Any]] | None) -> Any:
    return NOTHING if write is None else {write[0]: write[1]}


def _sends(one: _Side, other: _Side) -> Iterator[Difference]:
    """What is the same goes away in pairs; of the rest the first is held against the first."""
    for key in dict.fromkeys((*one.sends, *other.sends)):
        record, connector, target = key
        lefts, rights = list(one.sends.get(key, ())), list(other.sends.get(key, ()))
        lefts, rights = _without_twins(lefts, rights)
        what = f"{connector} {target}"
        for left, right in zip(lefts, rights, strict=False):
            yield from _leaves(record, what, left, right)
        paired = min(len(lefts), len(rights))
        yield from (Difference(record, what, "", _shown(left), NOTHING) for left in lefts[paired:])
        yield from (Difference(record, what, "", NOTHING, _shown(right)) for right in rights[paired:])


def _without_twins(lefts: list[_Message], rights: list[_Message]) -> tuple[list[_Message], list[_Message]]:
    """What neither side has of the other's, in order. A batch may have thousands: each is looked up, not looked for."""
    twins: dict[Any, list[int]] = {}
    for place, right in enumerate(rights):
        twins.setdefault(_identity(right), []).append(place)
    gone: set[int] = set()
    rest: list[_Message] = []
    for left in lefts:
        places = twins.get(_identity(left), [])
        if (at := next((n for n, place in enumerate(places) if same(left, rights[place])), None)) is None:
            rest.append(left)
        else:
            gone.add(places.pop(at))
    return rest, [right for place, right in enumerate(rights) if place not in gone]


def _identity(value: Any) -> Any:
    """What is equal where `same` says so; moments stand aside."""
    match value:
        case bool():
            return "is", value
        case float() if value != value:
            return "NaN", None
        case dict():
            return "object", frozenset((key, _identity(each)) for key, each in value.items())
        case list():
            return "list", tuple(map(_identity, value))
        case _Due():
            return "due", None
    return value


def _shown(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.after if isinstance(each, _Due) else each for name, each in flat(dict(message)).items()}


def _leaves(record: str | None, what: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    """What differs of two messages or answers, leaf by leaf; as a whole where no leaf does: a list is no object."""
    found = list(_fields(record, what, flat(dict(left)), flat(dict(right))))
    if not found and not same(dict(left), dict(right)):
        found = [Difference(record, what, "", _shown(left), _shown(right))]
    yield from found


def _answers(live: Ended, candidate: Ended) -> Iterator[Difference]:
    one, other = live.answer, candidate.answer
    if one is None and other is None:
        return
    yield from _leaves(None, "answer", {} if one is None else _answer(one), {} if other is None else _answer(other))


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"status": answer.status}
    found |= {name.lower(): value for name, value in answer.headers if name.lower() in HEADERS}
    try:
        body = json.loads(answer.body)
    except ValueError:
        return found | {"body": answer.body.decode("utf-8", "replace")}
    return {**found, "body": body}


def _fields(record: str | None, what: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*left, *right)):
        there, here = left.get(name, NOTHING), right.get(name, NOTHING)
        if (name in left) != (name in right) or not same(there, here):
            yield Difference(
                record, what, name, *(each.after if isinstance(each, _Due) else each for each in (there, here))
            )


def _near(one: _Due, other: _Due) -> bool:
    """Whether an author may have said the same: so long from now, or that moment."""
    return min(abs(one.after - other.after), abs(one.moment - other.moment)) < APART


def _ignored(each: Difference, ignore: Collection[str]) -> bool:
    """Whether the author wants this to be left out. Of a write it is its object that counts, not its record."""
    if not each.field:
        return False
    owner = each.what if each.what == "answer" else each.what.split(" ", 1)[0]
    names = {f"{owner}.{each.field}", f"{each.what.replace(' ', '.', 1)}.{each.field}"}
    return any(name == said or name.startswith(f"{said}.") for name in names for said in ignore)


def _short(value: Any) -> Any:
    text = json.dumps(value, default=str, ensure_ascii=False)
    if len(text.encode()) <= LARGEST // 3:
        return value
    return f"{text[: LARGEST // 12]}…"
