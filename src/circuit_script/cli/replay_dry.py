"""``circuit-script replay --dry-run``: what the handlers would do, record by record, and in sum."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import psycopg
from rich.console import Console
from rich.text import Text

from circuit_script.cli.invoke import app_database
from circuit_script.cli.output import console, print_json
from circuit_script.config import Settings
from circuit_script.db.pool import unavailable
from circuit_script.events.replay.choosing import Filter
from circuit_script.tenants.accounts import TenantMap

WIDEST = 90  # characters of one value
_COLOURS = {"succeeded": "green", "failed": "bold red", "unreadable": "red"}


def show_dry(settings: Settings, wanted: Filter, release: int | None, as_json: bool) -> int:
    """Run it and show it; with ``as_json`` as JSON Lines, the last of which is the sum. The exit code: 1 when
    something would fail."""
    try:
        summary = asyncio.run(_run(settings, wanted, release, as_json))
    except psycopg.Error as error:
        raise unavailable(error) from error
    return 1 if summary.records.keys() & {"failed", "unreadable"} else 0


async def _run(settings: Settings, wanted: Filter, release: int | None, as_json: bool) -> Any:
    from circuit_script.execution.hardening import hide_from_children
    from circuit_script.wiring.replay_dry import DryReplay

    hide_from_children()
    out = console()
    async with app_database(settings) as url, DryReplay(settings, url, release=release) as dry:
        choice = dry.choice(wanted, TenantMap(settings.accounts))
        async for done in dry.run(choice):
            if as_json:
                print_json(asdict(done), lines=True)
            else:
                _show(out, done)
        if as_json:
            print_json({"summary": asdict(dry.summary)}, lines=True)
        else:
            _show_sum(out, dry.summary)
        return dry.summary


def _show(out: Console, done: Any) -> None:
    """One record: how it ends, what would be written, sent and logged."""
    what = f"{done.object} {done.record}" if done.record is not None else f"{done.object}: of the batch as a whole"
    out.print(Text.assemble((f"{done.status} ", _COLOURS.get(done.status, "yellow")), (done.handler, "cyan"),
                            f" {what}", (f"  {done.tenant} {done.event}", "dim")), soft_wrap=True)  # fmt: skip
    if done.reason:
        _line(out, done.reason)
    for change in done.changes:
        of_others = "" if (change.object, change.id) == (done.object, done.record) else f" {change.object} {change.id}"
        if not change.fields:
            _line(out, f"{change.op}{of_others}: {'the record' if change.op == 'delete' else 'nothing would change'}")
        for name, (before, after) in change.fields.items():
            _line(out, f"{change.op}{of_others} {name}: {_value(before)} → {_value(after)}")
    for sent in done.sends:
        _line(out, f"send {sent.connector} {sent.target}: {_value(sent.payload)}")
    for line in done.log:
        _line(out, f"log {line.level}: {line.message}{f' {_value(line.fields)}' if line.fields else ''}")


def _show_sum(out: Console, summary: Any) -> None:
    if not summary.records:
        out.print("No event fits that could be replayed.")
        return
    through = "files that are no recorded release" if summary.release is None else f"release {summary.release}"
    ends = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.records.items()))
    out.print(f"\n{ends}  ·  through {through}{' (live)' if summary.live else ''}", markup=False)
    out.print(f"writes that would change something: {summary.writes:,} ({summary.fields:,} fields)  ·  "
              f"sends: {summary.sends:,}  ·  log lines: {summary.lines:,}")  # fmt: skip
    if summary.refused:
        out.print(f"calls refused, as nothing was recorded of them: {summary.refused:,}")
    out.print("Nothing was written, nothing was sent.", style="dim")


def _line(out: Console, text: str) -> None:
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text.replace("\n", " "))
    out.print(Text(f"    {shown}"), soft_wrap=True)


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
