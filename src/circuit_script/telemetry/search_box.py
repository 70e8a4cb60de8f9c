"""The language of one search box: the command line, the API and the dashboard read the same words.

``level:error handler:score tenant:acme record:4711 user:ann since:2h lead=4711 "exact phrase" word``
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from circuit_script.errors import LogQueryRefused

LONGEST = 4000  # characters of one question
MOST = 40  # words and fields of one question
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_BLANK = re.compile(r"\s*")
_NAMED = re.compile(r"(?P<name>[A-Za-z]+):(?=\S)")
_FIELD = re.compile(r"(?P<name>[^\s\"=:]+)=(?=\S)")
_QUOTED = re.compile(r'"(?P<value>[^"]*)"')
_BARE = re.compile(r'[^\s"]+')
NAMES = ("level", "handler", "tenant", "record", "user", "execution", "delivery", "trace", "since", "until")


def moment(said: str, now: datetime) -> datetime:
    """``2h`` ago, or the moment itself (local time unless it names an offset). Raises ValueError."""
    try:
        if found := re.fullmatch(r"([0-9]{1,6})([smhdw])", said):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        return datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{said!r} is no moment. Write 90s, 30m, 2h, 1d, or 2026-05-01T08:00.") from None


def words_of(text: str) -> Sequence[str]:
    """Words, and phrases in quotation marks; one that is never closed goes on to the end."""
    return [quoted or word for quoted, word in re.findall(r'"([^"]*)"?|([^\s"]+)', text) if quoted or word]


def read(text: str, levels: Sequence[str]) -> dict[str, Any]:
    """The fields of a question. Raises LogQueryRefused."""
    if len(text) > LONGEST:
        raise LogQueryRefused(f"A question has at most {LONGEST} characters.", position=LONGEST)
    found: dict[str, Any] = {}
    words: list[str] = []
    where: list[tuple[str, str]] = []
    place = _skip(text, 0)
    while place < len(text):
        begins = place
        if (named := _NAMED.match(text, place)) and _is_name(named["name"], place):
            value, place = _value(text, named.end())
            _put(found, named["name"].lower(), value, begins, levels)
        elif field := _FIELD.match(text, place):
            value, place = _value(text, field.end())
            where.append((field["name"], value))
        else:
            value, place = _value(text, place)
            words.append(f'"{value}"' if re.search(r"\s", value) else value)
        if len(words) + len(where) > MOST:
            raise LogQueryRefused(f"A question has at most {MOST} words and fields.", position=begins)
        place = _skip(text, place)
    if words := [word for word in words if word]:
        found["text"] = " ".join(words)
    return found | ({"where": tuple(where)} if where else {})


def _skip(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place


def _is_name(name: str, place: int) -> bool:
    """Whether it asks for something that a line has. An address (``https://…``) is a word; a slip is refused."""
    if name.lower() in NAMES:
        return True
    if close := difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.75):
        raise LogQueryRefused(f"There is no {name!r} to search by.", cure=f"Did you mean {close[0]!r}?", position=place)
    return False


def _value(text: str, place: int) -> tuple[str, int]:
    """What stands at ``place``, in quotation marks or up to a blank, and where it ends."""
    if text[place] == '"':
        quoted = _QUOTED.match(text, place)
        if quoted is None:
            raise LogQueryRefused("A quotation mark is not closed.", position=place)
        return quoted["value"], quoted.end()
    bare = _BARE.match(text, place)
    return (bare[0], bare.end()) if bare else (text[place:], len(text))


def _put(found: dict[str, Any], name: str, value: str, place: int, levels: Sequence[str]) -> None:
    if name in found:
        raise LogQueryRefused(f"{name!r} is there twice.", position=place)
    reads: dict[str, Callable[[str], Any]] = {
        "level": lambda said: _level(said, levels),
        "execution": UUID,
        "delivery": UUID,
        "since": lambda said: moment(said, datetime.now(UTC)),
        "until": lambda said: moment(said, datetime.now(UTC)),
        "trace": _trace,
    }
    try:
        found[name] = reads.get(name, str)(value)
    except ValueError as error:
        raise LogQueryRefused(f"{name}: {error}", position=place) from None


def _level(said: str, levels: Sequence[str]) -> str:
    if said.lower() not in levels:
        raise ValueError(f"{said!r} is none of {', '.join(levels)}")
    return said.lower()


def _trace(said: str) -> str:
    plain = said.replace("-", "").lower()
    if re.fullmatch(r"[0-9a-f]{32}", plain) is None:
        raise ValueError(f"{said!r} is no trace id: 32 hexadecimal digits")
    return plain
