"""How a source is asked: a request, its answer, and the reasons why there is none. Who carries it counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

LATER = "later"
UNAVAILABLE = "unavailable"
MAX_SAID = 200  # characters of a reason


class NotAnswered(Exception):
    """There is no answer now; the message is the reason, as the author of a handler reads it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason[:MAX_SAID]
        super().__init__(self.reason)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``shown`` names who is asked; ``secrets`` are values in it that nobody may see, also not in the
    answer; ``seconds`` bound each of its attempts, ``ceiling`` the bytes of its answer."""

    method: str
    url: str
    shown: str
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    ceiling: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, of a status from 200 to 499 but for 429."""

    status: int
    body: bytes = field(repr=False)


class Ask(Protocol):
    """One execution's way to the sources."""

    async def __call__(self, call: Call) -> Reply:
        """Raises NotAnswered."""
        ...

    async def secret(self, name: str) -> str | None:
        """A secret of the tenant; None when there is none. Raises NotAnswered when they cannot be read."""
        ...

    def left(self) -> float:
        """The seconds that the execution still has."""
        ...


def is_passing(reason: str) -> bool:
    """Whether the same question may be answered another time."""
    return reason.startswith((LATER, UNAVAILABLE))


def refused(shown: str, reply: Reply) -> NotAnswered:
    """The reason for an answer whose status says no."""
    return NotAnswered(f"{UNAVAILABLE}: {shown} answered HTTP {reply.status}")


def unreadable(shown: str) -> NotAnswered:
    return NotAnswered(f"{UNAVAILABLE}: the answer of {shown} cannot be read")


def text(value: Any, most: int = 200) -> str | None:
    """A foreign text that may be kept: short, of one line, and possible in JSON; None for what is no text."""
    if not isinstance(value, str):
        return None
    plain = value[: most * 4]
    if not plain.isprintable():  # which half a character is not either
        plain = "".join(c if c.isprintable() else " " for c in plain)
    cleaned = " ".join(plain.split())
    return cleaned[:most].rstrip() or None
