"""Values of unknown origin, read without ever raising: what is not understood is None."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from circuit_script.agents.virtual_lpr.profile import SECOND
from circuit_script.agents.virtual_lpr.section import plain

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LATEST = 253_402_300_799  # the last second that a datetime can hold
_YES = frozenset({"true", "yes", "y", "on", "1"})
_NO = frozenset({"", "false", "no", "n", "off", "0", "none", "null"})
_AMOUNT = r"[$€£]?\s?(\d[\d,]{0,15}(?:\.\d{1,4})?)\s?([km])?"
_MONEY = re.compile(rf"{_AMOUNT}(?:\s?(?:-|–|to)\s?{_AMOUNT})?\s?(?:\+|[a-z]{{3,7}})?", re.IGNORECASE)
_LONGEST = 2000  # characters of a free text that are looked at


def number(value: object) -> float | None:
    """A finite number, also one written as text."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value[:40] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def amount(value: object) -> float | None:
    """Money: 50000, "50,000", "$50k", "50k-75k USD"; of a range the lower end. A number inside other
    text is none: nobody shall write himself a budget into a sentence."""
    if not isinstance(value, str):
        return number(value)
    found = _MONEY.fullmatch(value.strip()) if len(value) < 60 else None
    if found is None:
        return None
    times = {"k": 1e3, "m": 1e6}.get((found[2] or "").lower(), 1.0)
    return float(found[1].replace(",", "")) * times


def flag(value: object) -> bool | None:
    """True, False, or a word for one of them."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return {0: False, 1: True}.get(value)
    if not isinstance(value, str) or not value or len(value) > 20:
        return None
    word = value.casefold().strip()
    return True if word in _YES else False if word in _NO else None


def written(value: object) -> str:
    """A short text, or a whole number as it is written; else empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:60].strip()
    return str(value) if isinstance(value, int) and abs(value) < 10**20 else ""


def text(value: object) -> str:
    """Text as it is compared, of one text or a list of them; else empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return plain(value[:_LONGEST])
    if isinstance(value, (list, tuple)):
        return plain(" ".join(item[:_LONGEST] for item in value[:50] if isinstance(item, str)))
    return ""


def texts(value: object) -> list[str]:
    """Each of a list's texts (or the one text) as it is compared."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [plain(item[:_LONGEST]) for item in items[:200] if isinstance(item, str)]


def instant(value: object) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text, a datetime, or seconds since 1970."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
            return (value - EPOCH) // MICROSECOND
        except ValueError:
            return None
        except TypeError:  # it names no zone
            return instant(value)
    if isinstance(value, datetime):
        return ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= LATEST:  # NaN and the infinities are refused here too
        return None
    return int(value * SECOND + 0.5) if isinstance(value, float) else value * SECOND


def moment(microseconds: int) -> datetime:
    """The instant as a datetime in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def has_phrase(inside: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words. Both are plain."""
    start = inside.find(phrase)
    while start >= 0 and phrase:
        end = start + len(phrase)
        before = start == 0 or not inside[start - 1].isalnum()
        if before and (end == len(inside) or not inside[end].isalnum()):
            return True
        start = inside.find(phrase, start + 1)
    return False
