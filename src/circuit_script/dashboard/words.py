"""How values are written for people: text that cannot mislead, numbers, spans and moments."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from circuit_script.governor.limits import MB

CUT = 20_000  # characters of a payload that are shown before somebody asks for all

# What would change how other text reads, or cannot be seen: controls, marks of direction, invisible spaces, tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff9-\uffff\U000e0000-\U000e0fff]"
)
_pretty = msgspec.json.Encoder(order="deterministic")


def visible(value: object) -> str:
    """The text, with what cannot be seen, or turns other text round, written out."""
    return _HIDDEN.sub(_written, value if isinstance(value, str) else str(value))


def _written(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x20:
        return chr(0x2400 + point)
    return "␡" if point == 0x7F else f"⟨U+{point:04X}⟩"


def short(value: object, longest: int = 120) -> str:
    """One line of it, visible."""
    line = " ".join(str(value)[: longest * 4].split())
    return visible(line if len(line) <= longest else line[: longest - 1] + "…")


def payload_text(value: object) -> str:
    """A payload as text: JSON is laid out, bytes that are no UTF-8 keep what can be read of them."""
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        try:
            return _laid_out(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return raw.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else _laid_out(value)


def editable(value: object) -> str:
    """JSON that a person may edit: nothing in it is hidden, and all of it comes back as it was."""
    return _HIDDEN.sub(_escaped, _laid_out(value))


def _escaped(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _laid_out(value: object) -> str:
    try:
        return msgspec.json.format(_pretty.encode(value), indent=2).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, indent=2, default=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return repr(value)


def number(value: float | Decimal | None, unit: str = "") -> str:
    """12,480 or 0.31, with its unit; a dash for none."""
    if value is None:
        return "–"
    if value == int(value):
        text = f"{int(value):,}"
    else:
        text = f"{value:,.2f}".rstrip("0").rstrip(".") if abs(float(value)) >= 0.1 else f"{value:.2g}"
    return f"{text} {unit}".rstrip()


def compact(value: float | None) -> str:
    """12.5k for 12,480: where there is little room."""
    if value is None:
        return "–"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[sign]
            return f"{value / scale:.3g}{sign}"
    return number(round(value, 2))


def money(value: float | Decimal | None) -> str:
    """US dollars, with as many places as it takes to see something."""
    if value is None:
        return "–"
    amount = Decimal(value)
    return f"${amount:,.2f}" if amount == 0 or abs(amount) >= 1 else f"${amount:,.4f}"


def percent(share: float | None) -> str:
    """0.0313 as 3.1 %."""
    return "–" if share is None else f"{share * 100:.2g} %" if share < 0.1 else f"{share * 100:.0f} %"


def measure(limit: str, value: float) -> str:
    """What is used of a limit, or may be, in the unit in which it says something: 18 ms, 128 MB, $0.0042, 20."""
    if limit in ("wall_time", "cpu_time", "blocked_loop"):
        return span(value) if value else "0 s"
    if limit == "memory" or limit.endswith("_bytes"):  # in the megabytes in which limits are set
        return f"{value / MB:.1f} MB".replace(".0 ", " ") if value >= MB / 10 else f"{math.ceil(value / 1024)} KB"
    return money(value) if limit == "llm_cost" else number(round(value))


def size(count: int | None) -> str:
    """Bytes as people count them."""
    if count is None:
        return "–"
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


def span(seconds: float | None) -> str:
    """840 µs, 12 ms, 4.2 s, 3 min, 2 h, 5 d."""
    if seconds is None:
        return "–"
    if seconds < 0.001:
        return f"{max(seconds, 0) * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for limit, scale, unit in ((5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / scale:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name; UTC where there is none."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9_+-]{1,30}){0,2}", name):
        try:
            return ZoneInfo(name)
        except Exception:  # whatever a browser may call its zone
            return ZoneInfo("UTC")
    return ZoneInfo("UTC")


def clock_text(at: datetime, zone: ZoneInfo, now: datetime | None = None) -> str:
    """A moment as its viewer's clock says it: the day only where it is not today."""
    here, today = at.astimezone(zone), (now or datetime.now(UTC)).astimezone(zone)
    if here.date() == today.date():
        return f"{here:%H:%M:%S}"
    if abs(today - here) < timedelta(days=300):
        return f"{here.day} {here:%b %H:%M:%S}"
    return f"{here.day} {here:%b %Y %H:%M}"


def exact_text(at: datetime, zone: ZoneInfo) -> str:
    """The same moment exactly, in the viewer's zone and in UTC."""
    here = at.astimezone(zone)
    return (
        f"{here.isoformat(sep=' ', timespec='milliseconds')} ({zone.key}) · {at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    )


def ceiling_of(most: float) -> int:
    """The end of a scale on which ``most`` has room: 1, 2 or 5 with as many noughts as it takes."""
    top = 1
    while top < most:
        top = top * 5 // 2 if str(top).startswith("2") else top * 2
    return top


def bars_path(values: Sequence[float], top: float, height: float = 100.0) -> str:
    """The path of an SVG that draws these as bars, one unit wide each; ``top`` is as tall as ``height``."""
    steps = []
    for place, value in enumerate(values):
        tall = height * min(value / top, 1.0)
        if value > 0:
            steps.append(f"M{place + 0.12:.2f} {height}v{-max(tall, 2):.1f}h.76v{max(tall, 2):.1f}z")
    return "".join(steps)
