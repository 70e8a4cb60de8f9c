"""A trace as a waterfall: each step below the one that it belongs to, its time as a bar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from circuit_script.dashboard.pieces import el
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import short, span, visible
from circuit_script.telemetry.traces import Span, Trace
from circuit_script.telemetry.w3c import span_id

LONG = 20  # times an execution's own duration, from which on what came before and after it is cut
MOST = 300  # steps that are drawn
WAITS = ("wait", "intake", "queue")


def waterfall(trace: Trace) -> None:
    """Draw it."""
    first, last = _window(trace)
    whole = (last - first) / timedelta(microseconds=1)
    with el("div", "waterfall"), still():
        for depth, each in _tree(trace.spans)[:MOST]:
            _step(each, depth, (each.start - first) / timedelta(microseconds=1) / whole * 100, whole)
    if len(trace.spans) > MOST:
        el("p", "muted", f"The first {MOST} steps.")


def _step(each: Span, depth: int, begins: float, whole: float) -> None:
    wide = each.duration_us / whole * 100
    left = min(max(begins, 0.0), 99.5)
    wide = min(max(begins + wide, left) - left, 100 - left)
    wrong = each.status not in ("ok", "pending")
    waits = any(word in each.name for word in WAITS) or each.status == "pending"
    with el("div", f"span {'error' if wrong else 'wait' if waits else ''}".strip(), title=_told(each)):
        el("span", "span-name", _title(each)).style(f"padding-left:{min(depth, 8) * 0.9}rem")
        with el("span", "span-room"):
            el("span", "span-full").style(f"left:{left:.3f}%;width:{wide:.3f}%")
        el("span", "span-time", "…" if each.status == "pending" else span(each.duration_us / 1e6))


def _title(each: Span) -> str:
    what = " ".join(
        str(each.attributes[name]) for name in ("model", "object", "url", "host") if each.attributes.get(name)
    )
    what = what.removeprefix("https://").removeprefix("http://")
    return short(f"{each.name} {what}".strip(), 90)


def _told(each: Span) -> str:
    lines = [
        f"{each.name}: {each.status}",
        *(f"{name}: {short(value, 300)}" for name, value in each.attributes.items()),
    ]
    return visible("\n".join(lines[:40])).replace("\u240a", "\n")


def _window(trace: Trace) -> tuple[datetime, datetime]:
    """From when to when: where waiting took far longer than working, it is the work that is drawn."""
    settled = [each for each in trace.spans if each.status != "pending"] or list(trace.spans)
    first, last = min(each.start for each in settled), max(each.end for each in settled)
    own = next((each for each in settled if each.id == span_id(trace.execution)), None)
    if own is not None:
        longest = max(timedelta(milliseconds=1), own.end - own.start)
        if last - first > LONG * longest:
            first, last = max(first, own.start - longest / 2), min(last, own.end + longest / 2)
    return first, max(last, first + timedelta(microseconds=1))


def _tree(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Each with its depth, behind the one that it belongs to."""
    known = {each.id for each in spans}
    below: dict[str | None, list[Span]] = {}
    for each in spans:
        below.setdefault(each.parent if each.parent in known and each.parent != each.id else None, []).append(each)
    found: list[tuple[int, Span]] = []
    waiting = [(0, each) for each in reversed(below.get(None, []))]
    while waiting:
        depth, one = waiting.pop()
        found.append((depth, one))
        waiting += [(depth + 1, each) for each in reversed(below.pop(one.id, []))]
    return found
