"""``circuit-script logs``: what the handlers logged, and which executions failed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer
from rich.console import Console
from rich.text import Text

from circuit_script.cli.app_database import looking
from circuit_script.cli.completion import complete_handler
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, visible
from circuit_script.cli.traces import authors_part, indented, taken_out
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import unavailable
from circuit_script.telemetry import LogLine, LogQuery, LogReader

NAME = "logs"
EXAMPLES = (
    "Examples:  circuit-script logs -f  ·  circuit-script logs --level error --since 2h  ·  "
    "circuit-script logs --record c1  ·  circuit-script logs --json | jq .message"
)
POLL = 0.5  # seconds between two looks
SHARE = 10  # a look that took 1 s is followed by 10 s of rest
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLOURS = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


def run(
    folder: Folder = None,
    execution: Annotated[UUID | None, typer.Option(help="Of this execution only.")] = None,
    delivery: Annotated[UUID | None, typer.Option(help="Of what this delivery started.")] = None,
    record: Annotated[str | None, typer.Option(help="About this record only.")] = None,
    handler: Annotated[
        str | None,
        typer.Option(help="Of this handler, or of all whose name ends so.", autocompletion=complete_handler),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")] = None,
    level: Annotated[Level | None, typer.Option(help="Of this level and above.")] = None,
    since: Annotated[str | None, typer.Option(help="2h, 30m, 1d, or a moment like 2026-05-01T08:00.")] = None,
    search: Annotated[str | None, typer.Option(help="With this text in message or fields.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many lines at most, the newest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines, for scripts.")] = False,
) -> None:
    """Show what the handlers logged, and which executions failed."""
    query = LogQuery(
        execution=execution,
        delivery=delivery,
        record=record,
        handler=handler,
        tenant=tenant,
        level=level,
        since=moment(since, datetime.now(UTC)) if since is not None else None,
        search=search,
        limit=limit,
    )
    try:
        asyncio.run(_show(load_settings(app_folder(folder)), query, follow, as_json))
    except psycopg.Error as error:
        raise unavailable(error) from error


def moment(said: str, now: datetime) -> datetime:
    """``2h`` ago, or the moment itself (local time unless it names an offset). Raises BadParameter."""
    try:
        if found := re.fullmatch(r"(\d{1,6})([smhdw])", said):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        return datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError):
        cure = "Write 90s, 30m, 2h, 1d, or 2026-05-01T08:00."
        raise typer.BadParameter(f"{said!r} is no moment. {cure}", param_hint="--since") from None


async def _show(settings: Settings, query: LogQuery, follow: bool, as_json: bool) -> None:
    out = console()
    async with looking(settings, NAME) as connection:
        reader = LogReader(connection, query)
        lines = await reader.latest()
        _print(lines, out, as_json)
        if not lines and not as_json:
            console(stderr=True).print(_nothing(query, follow))
        while follow:
            began = time.monotonic()
            _print(await reader.newer(), out, as_json)
            await asyncio.sleep(max(POLL, SHARE * (time.monotonic() - began)))


def _nothing(query: LogQuery, follow: bool) -> str:
    asked = any(value is not None for name, value in asdict(query).items() if name != "limit")
    words = "No line fits that." if asked else "Nothing was logged yet."
    return f"{words} Waiting (Ctrl-C ends)." if follow else words


def _print(lines: list[LogLine], out: Console, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json(asdict(line), lines=True)
        else:
            out.print(_text(line), soft_wrap=True)


def _text(line: LogLine) -> Text:
    """One line for people: when, how bad, who, what, and the fields behind it; a traceback stands below."""
    local = line.at.astimezone()
    fields, trace = taken_out(line.context or {})
    return Text.assemble(
        (f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} ", "dim"),
        (f"{line.level:8} ", _COLOURS.get(line.level, "green")),
        (f"{line.handler} ", "cyan"),
        visible(line.message),
        (f"  {_fields(line, fields)}", "dim"),
        (visible(indented(authors_part(trace))), "dim"),
    )


def _fields(line: LogLine, fields: Mapping[str, Any]) -> str:
    shown = dict(fields)
    if line.record is not None:
        shown["record"] = line.record
    shown["execution"] = str(line.execution)
    return visible(" ".join(f"{name}={_value(value)}" for name, value in shown.items()))


def _value(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False, default=str)
