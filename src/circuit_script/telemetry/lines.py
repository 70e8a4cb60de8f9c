"""Lines of the log, and the questions by which they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from circuit_script.errors import LogQueryRefused
from circuit_script.telemetry import search_box

LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page begins: before the line of ``execution`` at ``at`` (None: before all of that execution), of
    whose equals ``skip`` were shown. ``fine`` says into how many parts a stretch of time is cut."""

    execution: UUID
    at: datetime | None = None
    skip: int = 0
    fine: int = 1

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises LogQueryRefused for what no page gave out."""
        try:
            execution, at, skip, fine = text.split(".")
            found = cls(UUID(execution), _exactly(int(at)) if at else None, int(skip), int(fine))
        except (ValueError, OverflowError, OSError):
            raise LogQueryRefused("This is no cursor of a page of the log.", position=0) from None
        if not (0 <= found.skip <= 100_000 and 1 <= found.fine <= 1 << 20):
            raise LogQueryRefused("This is no cursor of a page of the log.", position=0)
        return found

    def __str__(self) -> str:
        at = "" if self.at is None else f"{int(self.at.timestamp()) * 1_000_000 + self.at.microsecond}"
        return f"{self.execution}.{at}.{self.skip}.{self.fine}"


def _exactly(microseconds: int) -> datetime:
    whole = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return whole.replace(microsecond=microseconds % 1_000_000)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines. ``handler`` is a handler's name or the last part of it; ``level`` is the least that is shown;
    ``text`` holds words and "phrases", ``where`` fields and their values; ``before`` is where the last page ended."""

    execution: UUID | None = None
    delivery: UUID | None = None
    record: str | None = None
    handler: str | None = None
    tenant: str | None = None
    user: str | None = None
    trace: str | None = None
    level: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    limit: int = 100
    before: Cursor | None = None

    @classmethod
    def parse(cls, text: str) -> LogQuery:
        """What was typed into a search box: ``level:error handler:score since:2h lead=4711 "in order" word``.

        Raises LogQueryRefused, which knows the place of what it does not understand.
        """
        return cls(**search_box.read(text, LEVELS))

    @property
    def levels(self) -> list[str] | None:
        """Those that are shown; None: all."""
        return None if self.level in (None, LEVELS[0]) else list(LEVELS[LEVELS.index(str(self.level)) :])

    @property
    def words(self) -> Sequence[str]:
        """Words and phrases of ``text``."""
        return [] if self.text is None else search_box.words_of(self.text)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an execution's log. ``trace`` is the execution's own, unless what started it brought one."""

    at: datetime
    level: str
    message: str
    context: Mapping[str, Any] | None
    execution: UUID
    handler: str
    tenant: str
    record: str | None
    trace: str
    user: str | None
    release: int | None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines, the newest first. ``before`` is the cursor of the next page, None at the end; ``looked_back_to`` is set
    where the time for one page was up before enough lines were found: older ones have not been looked at yet."""

    lines: list[LogLine]
    before: str | None = None
    looked_back_to: datetime | None = None
