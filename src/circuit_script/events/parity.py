"""What the old service answered beside what ours would have written: the same, different, or not to be compared.

Nothing is asked or stored here. The old service says by the JSON of its answer what it made of a delivery, ours by the
fields that it would write, or by the reason for which it would not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit_script.events.mirrors import Difference, State

MOST = 20  # differences that are told of a delivery
LONGEST = 400  # characters of one value
LARGEST = 65_536  # bytes that are kept of an old answer
EACH = "*"  # in a path: one value for each record of the delivery

_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Rule:
    """What is compared: the value at ``path`` of the old JSON with ``field`` of the ``object`` that ours writes.
    Numbers may be ``within`` of each other."""

    path: str
    object: str
    field: str
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class Written:
    """A row that ours would write, or, with ``deleted``, would not leave there."""

    object: str
    id: str
    fields: Mapping[str, Any]
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Ours:
    """What ours would make of one event. ``handlers`` is how many of them take it, ``refused`` why one of them would
    not, ``closed`` what was asked for and refused only because the old service still answers."""

    object: str
    event: str
    record: str
    handlers: int = 1
    writes: tuple[Written, ...] = ()
    refused: str = ""
    closed: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a comparison found. ``why`` is said of what is not compared; ``differences`` of what is the same are the
    values that were compared."""

    state: State
    why: str = ""
    differences: tuple[Difference, ...] = ()


def rules_of(compare: Mapping[str, str], within: Mapping[str, float]) -> tuple[Rule, ...]:
    """The rules of a table like ``{"score": "Contact.score"}``."""
    found = []
    for path, target in compare.items():
        object_, _, field = target.partition(".")
        found.append(Rule(path, object_, field, within.get(path, 0.0)))
    return tuple(found)


def compared(answer: bytes, ours: Sequence[Ours], rules: Sequence[Rule]) -> Found:
    """One delivery: what the old service answered beside what ours would make of its events."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        if len(answer) >= LARGEST:
            return Found("incomparable", "the old service's answer is larger than what is kept of it (64 KB)")
        return Found("silent", "the old service's answer is no JSON")
    if not ours:
        return Found("incomparable", "its events are not kept any more")
    different: list[Difference] = []
    same: list[Difference] = []
    for rule in rules:
        values = _at(told, rule.path.split("."))
        if EACH not in rule.path.split(".") and len(ours) > 1 and values:
            return Found("incomparable", f"{rule.path} is one value, and the delivery has {len(ours)} records")
        if values and len(values) != len(ours):
            said = f"{rule.path}: {len(values)} values for {len(ours)} records"
            different.append(Difference("", f"{rule.object}.{rule.field}", str(len(values)), str(len(ours)), said))
            continue
        for each, old in zip(ours, values or [_ABSENT] * len(ours), strict=True):
            value = _written(each, rule)
            if not _equal(old, value, rule.within):
                different.append(_difference(each, rule, old, value))
            elif old is not _ABSENT:
                same.append(_difference(each, rule, old, value))
    return _judged(different, same, ours)


def _judged(different: Sequence[Difference], same: Sequence[Difference], ours: Sequence[Ours]) -> Found:
    failed = [each for each in ours if each.refused]
    if different or failed:
        if closed := next((each.closed for each in ours if each.closed), ""):
            return Found("incomparable", closed)
        told = different or [
            Difference(each.record, "", "taken", "refused", f"the old service took it, ours would not: {each.refused}")
            for each in failed
        ]
        return Found("different", "", tuple(told[:MOST]))
    if same:
        return Found("same", "", tuple(same[:MOST]))
    return Found("silent", "neither the old service nor ours says anything of what is compared")


def _nobody(ours: Ours) -> str:
    if not ours.handlers:
        return f"no handler takes {ours.object}.{ours.event}"
    return "it writes no such field"


def _written(ours: Ours, rule: Rule) -> Any:
    """What ours would write there in the end: into the event's own record, or into the only one that it writes."""
    values: dict[str, Any] = {}
    for each in ours.writes:
        if each.object == rule.object and each.deleted:
            values.pop(each.id, None)
        elif each.object == rule.object and rule.field in each.fields:
            values[each.id] = each.fields[rule.field]
    if ours.record in values:
        values = {ours.record: values[ours.record]}
    if not values:
        return _ABSENT
    found = next(iter(values.values())) if len(values) == 1 else values
    return _ABSENT if found is None else found


def _at(value: Any, path: Sequence[str]) -> list[Any]:
    """What stands there; more than one with a ``*`` in the path. What is null is not there."""
    if not path:
        return [] if value is None else [value]
    name, rest = path[0], path[1:]
    if name == EACH:
        return [found for each in _inside(value) for found in (_at(each, rest) or [_ABSENT])]
    if isinstance(value, dict):
        return _at(value.get(name), rest)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return _at(value[int(name)], rest)
    return []


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _equal(old: Any, ours: Any, within: float) -> bool:
    if old is _ABSENT or ours is _ABSENT:
        return old is ours
    if _is_number(old) and _is_number(ours):
        return bool(old == ours) or _near(old, ours, within)
    match old, ours:  # True is no 1, wherever it stands
        case dict(), dict():
            return old.keys() == ours.keys() and all(_equal(old[key], ours[key], within) for key in old)
        case list(), list() | tuple():
            return len(old) == len(ours) and all(_equal(*pair, within) for pair in zip(old, ours, strict=True))
        case _:
            return type(old) is type(ours) and bool(old == ours)


def _near(old: Any, ours: Any, within: float) -> bool:
    try:
        return bool(abs(old - ours) <= within)
    except OverflowError:  # an integer that no float can hold
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _difference(ours: Ours, rule: Rule, old: Any, value: Any) -> Difference:
    said = f"{rule.path}: old {_shown(old)}, ours {_shown(value)}"
    if value is _ABSENT and old is not _ABSENT:
        said += f" ({ours.refused or _nobody(ours)})"
    return Difference(ours.record, f"{rule.object}.{rule.field}", _shown(old), _shown(value), said)


def _shown(value: Any) -> str:
    """A value as a person reads it: text with its quotes, so that "78" is not 78."""
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
