"""Signals as they come (a list of dicts of unknown quality) → columns that are fast to weigh."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from circuit_script.agents.virtual_lpr.profile import SECOND, Kind, Profile
from circuit_script.agents.virtual_lpr.reading import flag, instant, number, written

BOT_CLICK = 5 * SECOND  # a click so soon after delivery is a scanner's

Seen = tuple[int, float, Kind, Any]  # at, points × confidence, kind, the signal as it came


class Signals(msgspec.Struct, frozen=True, gc=False):
    """What counts for the lead, oldest first, in parallel columns; and what counts against it."""

    ats: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    kinds: tuple[Kind, ...] = ()
    raws: tuple[Any, ...] = ()
    against: tuple[Seen, ...] = ()
    gates: tuple[tuple[int, str], ...] = ()  # (at, gate or what lifts one), oldest first


EMPTY = Signals()


def read_signals(given: object, profile: Profile) -> Signals:
    """Sorted by time; what is not understood, or has no instant, is left out. Never raises."""
    rows = rows_of(given)
    if not rows:
        return EMPTY
    kinds = profile.kinds
    positive: list[Seen] = []
    against: list[Seen] = []
    gates: list[tuple[int, str]] = []
    for raw in rows:
        try:
            name, at = raw["type"], raw["at"]
            kind = kinds.get(name)
            confidence = raw.get("confidence", 1)
        except (TypeError, KeyError, AttributeError):
            continue
        when = instant(at)
        if when is None:
            continue
        if kind is None:
            if isinstance(name, str):
                gates.append((when, name))
        elif kind.group < 0:
            against.append((when, kind.points, kind, raw))
        else:
            weight = kind.points if confidence == 1 else kind.points * _confidence(confidence)
            if weight > 0 and not (name == "link_click" and _is_bot(raw, when)):
                positive.append((when, weight, kind, raw))
    positive.sort(key=itemgetter(0))
    against.sort(key=itemgetter(0))
    ats, weights, shapes, raws = zip(*positive, strict=True) if positive else ((), (), (), ())
    return Signals(ats, weights, shapes, raws, tuple(against), _gate_signals(gates, profile))


def gates_set(signals: Signals, now: int, profile: Profile) -> dict[str, str]:
    """Gates that signals up to ``now`` closed and nothing has lifted since, with what set them."""
    closed: dict[str, str] = {}
    for at, name in signals.gates:
        if at > now:
            break
        if name in profile.gates.names:
            closed[name] = "a signal"
        else:
            for gate in _lifted(name, profile):
                closed.pop(gate, None)
    return closed


def latest(signals: Signals, now: int, groups: Container[int]) -> int | None:
    """The instant of the last signal of one of these groups that is not after ``now``."""
    ats, kinds = signals.ats, signals.kinds
    for place in range(bisect_right(ats, now) - 1, -1, -1):
        if kinds[place].group in groups:
            return ats[place]
    return None


def signal_id(raw: object) -> str:
    """The id that a signal came with, or empty."""
    return written(raw.get("id")) if isinstance(raw, (dict, Mapping)) else ""  # a dict is known faster


def rows_of(given: object) -> Sequence[Any]:
    """The list itself, or the one that a JSON text holds; else empty."""
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.lstrip()[:1] == "[" and len(given) < 1_000_000 else ()
        except (ValueError, RecursionError):
            return ()
    return given if isinstance(given, (list, tuple)) else ()


def _confidence(value: object) -> float:
    if value is None:
        return 1.0
    found = number(value)
    return min(max(found, 0.0), 1.0) if found is not None else 0.0


def _is_bot(raw: Mapping[str, Any], at: int) -> bool:
    delivered = instant(raw.get("delivered_at"))
    return flag(raw.get("bot")) is True or (delivered is not None and at - delivered <= BOT_CLICK)


def _gate_signals(found: list[tuple[int, str]], profile: Profile) -> tuple[tuple[int, str], ...]:
    if not found:
        return ()
    known = [pair for pair in found if pair[1] in profile.gates.names or _lifted(pair[1], profile)]
    return tuple(sorted(known, key=lambda pair: (pair[0], pair[1] in profile.gates.names)))


def _lifted(name: str, profile: Profile) -> list[str]:
    return [
        gate
        for gate in sorted(profile.gates.names)
        if name == f"lift_{gate}" or name in profile.gates.reversed_by.get(gate, frozenset())
    ]
