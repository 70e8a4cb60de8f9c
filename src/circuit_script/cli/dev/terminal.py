"""What a developer sees: log lines and failed executions as they happen, errors with their source line.

Everything goes to standard error, a line at a time, from whichever process knows of it. Colours are off when that is no
terminal, and where NO_COLOR is set.
"""

from __future__ import annotations

import linecache
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from rich.console import Console
from rich.text import Text

from circuit_script.cli.traces import authors_part, indented, taken_out
from circuit_script.effects.settle import Settlement
from circuit_script.errors import CircuitError

LEVELS = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red", "critical": "bold red"}
# What a record became that did not succeed, and how an execution ends of which nothing is said.
BECAME = {
    "retry": "failed and tried again later",
    "dead": "failed for good",
    "cancelled": "cancelled",
    "deferred": "put off",
}
HELD = "held for a person"
WELL = ("succeeded", "echo", "partial", "cancelled", "deferred")
LONGEST = 2000  # letters of one value: the whole stands in the log
TRACE = 12  # lines of a traceback, its last ones
# Only of code the line is shown: one of circuit.toml may hold a secret.
_PLACE = re.compile(r"^(?P<file>/[^:\n]+\.py):(?P<line>\d+)(?=:|$)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def log_to_terminal(role: str) -> None:
    """The platform's own lines, from warnings up, as people read them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            # A traceback without the variables of its frames: they may be a password, a cookie, anybody's data.
            structlog.dev.ConsoleRenderer(
                colors=coloured(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(role=role)


def coloured() -> bool:
    """Whether whoever reads standard error wants colours."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Screen:
    """Prints whole blocks, so that those of several processes do not mix within a line."""

    def __init__(self, to: Console | None = None) -> None:
        self._console = to or Console(stderr=True, highlight=False, color_system="auto" if coloured() else None)

    def show(self, *parts: tuple[str, str] | str) -> None:
        """One block of text with styles. What a terminal would take for an order is not passed on."""
        text = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            text.append(printable(words), style)
        try:
            self._console.print(text, soft_wrap=True)
        except OSError:
            return  # the terminal is gone, and so is its reader


class TerminalTap:
    """What a worker's executions say and how they end, on the terminal."""

    def __init__(self, screen: Screen | None = None) -> None:
        self._screen = screen or Screen()
        self._told: tuple[str, str | None] = ("", None)

    def line(self, execution: UUID, handler: str, tenant: str, line: dict[str, Any]) -> None:
        """A handler has logged this."""
        level = str(line.get("level") or "info")
        record, context, trace = line.get("record"), line.get("context"), ""
        if isinstance(context, dict):
            context, trace = taken_out(context)
        self._screen.show(
            (f"{_clock(line.get('at'))} ", "dim"),
            (f"{level:<8}", LEVELS.get(level, "")),
            (f" {handler}", "cyan"),
            (f" {_short(record)}", "magenta") if record is not None else "",
            f"  {_short(line.get('message') or '')}",
            (f"  {_pairs(context)}", "dim") if context else "",
            (_trace(trace), "dim") if trace else "",
        )

    def settled(self, settlement: Settlement, handler: str) -> None:
        """What became of an execution, or of its records up to a checkpoint; nothing is said of what went well."""
        of = {status: sum(1 for row in settlement.rows if row.status == status) for status in BECAME}
        held = settlement.status == "held"
        told = [f"{count} {HELD if held else BECAME[status]}" for status, count in of.items() if count]
        if not told and (settlement.rows or settlement.status in WELL):
            return
        failed = of["retry"] or of["dead"] or not settlement.rows
        gently = "deferred" if of["deferred"] else "cancelled"
        status, style = (settlement.status, "yellow" if held else "bold red") if failed else (gently, "yellow")
        if told:
            told[0] += f" of {_count(len(settlement.rows))}"
        again = (handler, settlement.detail) == self._told
        self._told = handler, settlement.detail
        self._screen.show(
            (f"{_clock(None)} ", "dim"),
            (f"{status:<8}", style),
            (f" {handler}", "cyan"),
            f"  {_short(settlement.reason or '')}",
            (f"  {', '.join([*told, f'execution {settlement.execution}'])}", "dim"),
            (_trace(settlement.detail), "dim") if settlement.detail and not again else "",
        )


def show_error(screen: Screen, error: CircuitError, folder: Path, *, after: str) -> None:
    """An error with its place, its source line and its cure, and what runs ``after`` it."""
    detail, place = error.detail or str(error), _PLACE.match(error.detail)
    source = ""
    if place is not None:
        linecache.checkcache(place["file"])
        source = linecache.getline(place["file"], int(place["line"])).rstrip()
    screen.show(
        ("error ", "bold red"),
        (detail.replace(f"{folder}/", ""), "bold"),
        f"\n    {source.strip()}" if source else "",
        f"\n  {error.cure.replace(f'{folder}/', '').replace(' and start again', '')}" if error.cure else "",
        (f"\n  more: circuit-script explain {error.page}", "dim"),
        (f"\n  {after}", "yellow"),
    )


def printable(words: str) -> str:
    """Text without what moves a terminal's cursor or changes its colours: webhooks bring what strangers wrote."""
    return _CONTROL.sub("\ufffd", words)


def _clock(at: Any) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(float(at or time.time())))
    except (TypeError, ValueError, OverflowError, OSError):
        return "--:--:--"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} letters)"


def _pairs(context: Any) -> str:
    if not isinstance(context, dict):
        return _short(context)
    return _short(" ".join(f"{name}={value!r}" for name, value in context.items()))


def _count(records: int) -> str:
    return f"{records} record{'' if records == 1 else 's'}"


def _trace(detail: str) -> str:
    lines = authors_part(detail).splitlines()
    kept = lines[-TRACE:]
    return indented("\n".join(["…", *kept] if len(kept) < len(lines) else kept))
