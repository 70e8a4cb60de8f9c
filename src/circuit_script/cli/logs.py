"""``circuit-script logs``: what the handlers logged, and which executions failed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
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
from circuit_script.errors import LogQueryRefused
from circuit_script.telemetry import LogLine, LogPage, LogQuery, LogReader, search_box
from circuit_script.telemetry.lines import Cursor

NAME = "logs"
EXAMPLES = (
    "Examples:  circuit-script logs -f  ·  circuit-script logs --level error --since 2h  ·  "
    "circuit-script logs --record c1  ·  circuit-script logs 'lead=4711 \"no score\" since:1d'  ·  "
    "circuit-script logs --json | jq .message"
)
POLL = 0.5  # seconds between two looks
SHARE = 10  # a look that took 1 s is followed by 10 s of rest
_COLOURS = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


def run(
    query: Annotated[
        list[str] | None,
        typer.Argument(help='Words, "phrases", fields (lead=4711), and level:, handler:, tenant:, record:, user:, …'),
    ] = None,
    folder: Folder = None,
    execution: Annotated[UUID | None, typer.Option(help="Of this execution only.")] = None,
    delivery: Annotated[UUID | None, typer.Option(help="Of what this delivery started.")] = None,
    trace: Annotated[str | None, typer.Option(help="Of this trace only.")] = None,
    record: Annotated[str | None, typer.Option(help="About this record only.")] = None,
    handler: Annotated[
        str | None,
        typer.Option(help="Of this handler, or of all whose name ends so.", autocompletion=complete_handler),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")] = None,
    user: Annotated[str | None, typer.Option(help="About this user only.")] = None,
    level: Annotated[Level | None, typer.Option(help="Of this level and above.")] = None,
    since: Annotated[str | None, typer.Option(help="2h, 30m, 1d, or a moment like 2026-05-01T08:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then: written like --since.")] = None,
    search: Annotated[str | None, typer.Option(help="With these words in message or fields.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many lines at most, the newest.")] = 100,
    before: Annotated[str | None, typer.Option(help="Go on where an earlier look ended, which said so.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines, for scripts.")] = False,
) -> None:
    """Show what the handlers logged, and which executions failed."""
    now = datetime.now(UTC)
    said = {
        "execution": execution,
        "delivery": delivery,
        "trace": trace,
        "record": record,
        "handler": handler,
        "tenant": tenant,
        "user": user,
        "level": None if level is None else level.value,
        "since": None if since is None else moment(since, now),
        "until": None if until is None else moment(until, now, "--until"),
    }
    asked = _asked(" ".join(query or []), search, {name: value for name, value in said.items() if value is not None})
    asked = replace(asked, limit=limit, before=None if before is None else Cursor.parse(before))
    try:
        asyncio.run(_show(load_settings(app_folder(folder)), asked, follow, as_json))
    except psycopg.Error as error:
        raise unavailable(error) from error


def moment(said: str, now: datetime, option: str = "--since") -> datetime:
    """``2h`` ago, or the moment itself (local time unless it names an offset). Raises BadParameter."""
    try:
        return search_box.moment(said, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _asked(text: str, search: str | None, options: Mapping[str, Any]) -> LogQuery:
    """What was typed and what options say; they must not say different things of the same."""
    asked = LogQuery.parse(text)
    if trace := options.get("trace"):
        options = {**options, "trace": LogQuery.parse(f"trace:{trace}").trace}
    for name, value in options.items():
        if getattr(asked, name) not in (None, value):
            raise LogQueryRefused(f"{name!r} is there twice.", position=text.find(f"{name}:"))
    words = " ".join(part for part in (asked.text, search) if part)
    return replace(asked, text=words or None, **options)


async def _show(settings: Settings, query: LogQuery, follow: bool, as_json: bool) -> None:
    out = console()
    async with looking(settings, NAME) as connection:
        reader = LogReader(connection, query)
        page = await reader.page()
        _print(sorted(page.lines, key=lambda line: line.at), out, as_json)
        if words := _about(page, query, follow, as_json):
            console(stderr=True).print(words)
        while follow:
            began = time.monotonic()
            _print(await reader.newer(), out, as_json)
            await asyncio.sleep(max(POLL, SHARE * (time.monotonic() - began)))


def _about(page: LogPage, query: LogQuery, follow: bool, as_json: bool) -> str:
    """What is to be said beside the lines."""
    if page.looked_back_to is not None:
        since = f"{page.looked_back_to.astimezone():%Y-%m-%d %H:%M:%S}"
        return f"Looked back to {since} so far. Older lines: --before {page.before}"
    return "" if page.lines or as_json else _nothing(query, follow)


def _nothing(query: LogQuery, follow: bool) -> str:
    asked = query != LogQuery(limit=query.limit)
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
