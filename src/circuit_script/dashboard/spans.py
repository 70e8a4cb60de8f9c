"""A trace as a waterfall: each step below the one that it belongs to, its time as a bar."""

from __future__ import annotations

from datetime import timedelta

from circuit_script.dashboard.pieces import el
from circuit_script.dashboard.still import still
from circuit_script.dashboard.words import short, span, visible
from circuit_script.telemetry.traces import Span, Trace, drawn, steps

MOST = 300  # steps that are drawn
WAITS = ("wait", "intake", "queue")


def waterfall(trace: Trace) -> None:
    """Draw it."""
    first, last = drawn(trace)
    whole = (last - first) / timedelta(microseconds=1)
    with el("div", "waterfall"), still():
        for depth, each in steps(trace.spans)[:MOST]:
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
