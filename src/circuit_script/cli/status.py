"""``circuit-script status``: what a running gateway says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.errors import NotRunning
from circuit_script.events.chores import BACKUP, GUARDIAN

NAME = "status"
EXAMPLES = "Examples:  circuit-script status  ·  circuit-script status --json | jq .queue_depth"
SHOWN = 5  # rows of each list; --json has more
WIDEST = 100  # letters of one reason
HASH = 12  # letters of a release's hash


def run(
    folder: Folder = None,
    url: Annotated[str | None, typer.Option(help="Address of the gateway, if not the one in circuit.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show deliveries, queue, executions and dead letters."""
    found = fetch(url or address_of(load_settings(app_folder(folder))))
    if as_json:
        print_json(found)
        return
    show(console(), found)


def fetch(address: str) -> dict[str, Any]:
    """The gateway's status document. Raises NotRunning when no gateway answers there."""
    try:
        answer = httpx.get(f"{address}/api/status", timeout=5.0)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NotRunning(f"No gateway answers at {address}: {error}.", cure="Start it: circuit-script dev.") from None
    return found


def address_of(settings: Settings) -> str:
    """Where the app's gateway is reached from this host."""
    gateway = settings.gateway
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
    return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"


def show(out: Console, found: Mapping[str, Any]) -> None:
    """The figures, and then the latest trouble: what failed, and what was given up."""
    out.print(add_rows(table("what", "now"), _figures(found)))
    errors = [_error(row) for row in found["errors"]]
    dead = [_dead(row) for row in found["dead"]]
    _list(out, "last errors", ("at", "handler", "ended", "records", "reason"), errors, len(errors))
    columns = ("at", "handler", "record", "attempts", "reason")
    _list(out, "dead letters", columns, dead, found["dead_letters"])
    if waits := [_waits(row) for row in found.get("put_off", ())]:
        columns = ("records", "of", "handler", "until", "reason")
        _list(out, "wait for money or a quota", columns, waits, len(waits))
    if effects := [_effects(row) for row in found.get("effects_waiting", ())]:
        headings = ("effects", "of", "to", "because", "until", "reason")
        _list(out, "effects that wait", headings, effects, len(effects))
    if errors or dead:
        more = "  ·  circuit-script dead list" if dead else ""
        out.print(f"\nmore: circuit-script logs --level error{more}", style="dim")


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "received", _with(found["received"], (found["unassigned"], "of no tenant"))
    refusals = [(row["n"], f"{row['source']} {row['reason']}") for row in found["refusals"][:SHOWN]]
    yield "refused", _with(found["refused"], *refusals)
    yield "events", _with(found["events"], (found["unrouted"], "without a handler"))
    age = f", the oldest for {found['queue_age_s']:,.0f} s" if found["queue_depth"] else ""
    yield "queue", f"{found['queue_depth']:,}{age}"
    if waits := found.get("waits"):
        yield "waits", ", ".join(f"{row['n']:,} {row['why']}" for row in waits)
    executions = ", ".join(f"{count:,} {status}" for status, count in sorted(found["executions"].items()))
    yield "executions", executions or "none"
    yield "effects waiting", f"{found['effects_pending']:,}"
    causes = [(row["n"], _short(row["reason"])) for row in found.get("dead_reasons", ())[:SHOWN]]
    yield "dead letters", _with(found["dead_letters"], *causes)
    if doubts := found.get("in_doubt"):
        yield "in doubt", f"{doubts:,} effect{'s' if doubts > 1 else ''}: circuit-script doubt list"
    p50, p95 = found["delay_p50_ms"], found["delay_p95_ms"]
    if p50 is not None and p95 is not None:
        yield "delay", f"{p50:,.0f} ms (95 %: {p95:,.0f} ms), of {found['delay_of']:,} in the last 5 minutes"
    yield "workers", "; ".join(map(_worker, found["workers"])) or "none"
    yield from _upkeep(found.get("upkeep", ()))
    if live := found["live"]:
        yield "release", f"{live['id']} ({live['content_hash'][:HASH]}) since {_at(live['since'])}"


def _upkeep(chores: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The latest copy, what the guardian has found, and whatever chore fails."""
    for chore in chores:
        done = _at(chore["succeeded_at"]) if chore["succeeded_at"] else "never"
        if chore["failure"]:
            yield chore["chore"], f"failed {_at(chore['failed_at'])}: {_short(chore['failure'])}; last good: {done}"
        elif chore["chore"].partition(" ")[0] == GUARDIAN:
            for finding in chore["detail"].get("findings", ())[:SHOWN]:
                yield "found", f"{_short(finding['what'])} {_short(finding['next'])}"
        elif chore["chore"] == BACKUP:
            yield chore["chore"], f"{done}, {chore['detail']['rows']:,} rows to {_short(chore['detail']['where'])}"


def _worker(row: Mapping[str, Any]) -> str:
    return f"process {row['pid']} on {row['host']}{', asleep' if row['asleep'] else ''}"


def _with(total: int, *parts: tuple[int, str]) -> str:
    said = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    return f"{total:,} ({said})" if said else f"{total:,}"


def _error(row: Mapping[str, Any]) -> tuple[str, ...]:
    reason = row["reason"] or ""
    return _at(row["at"]), row["handler"] or "", row["status"], f"{row['records']:,}", _short(reason)


def _dead(row: Mapping[str, Any]) -> tuple[str, ...]:
    who = row["handler"] or row["kind"]
    return _at(row["at"]), who, row["record"] or "", f"{row['attempts']:,}", _short(row["reason"] or "")


def _waits(row: Mapping[str, Any]) -> tuple[str, ...]:
    return f"{row['n']:,}", row["tenant"], row["handler"], _at(row["first"]), _short(row["reason"] or "")


WHY = {
    "behind": "another one of the record comes first",
    "reference": "an id they use is not made yet",
    "paused": "somebody paused it",
    "asked": "the vendor asked for time",
    "open": "the vendor does not answer",
    "rate": "the rate limit",
    "retry": "the next attempt",
    "due": "they are about to leave",
}


def _effects(row: Mapping[str, Any]) -> tuple[str, ...]:
    to = f"{row['connector']}.{row['operation']} {row['target']}"
    until = _at(row["until"]) if row["until"] else ""
    return f"{row['n']:,}", row["tenant"], _short(to), WHY[row["why"]], until, _short(row["reason"])


def _list(out: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], total: int) -> None:
    if not rows:
        return
    out.print()
    out.print(add_rows(table(*columns, title=title, right=("records", "attempts", "effects")), rows[:SHOWN]))
    if total > SHOWN:
        out.print(f"… and {total - len(rows[:SHOWN]):,} more: --json shows the latest", style="dim")


def _at(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%m-%d %H:%M:%S}"


def _short(text: str) -> str:
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…"
