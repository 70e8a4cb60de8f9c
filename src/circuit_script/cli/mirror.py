"""``circuit-script mirror``: which side acts on a mirrored source, and how far ours says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from circuit_script.cli.app_database import do
from circuit_script.cli.environments import Environment, settings_in
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.logs import moment
from circuit_script.cli.output import add_rows, console, day, print_json, table, visible
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import MirrorRefused
from circuit_script.events.mirror_moves import OLD, live_of
from circuit_script.events.mirrors import KEPT_DAYS, Difference, MirrorReport, Shown, report_of, shown

NAME = "mirror"
EXAMPLES = (
    "Examples:  circuit-script mirror  ·  circuit-script mirror --since 1h  ·  circuit-script mirror show DELIVERY"
)
WIDEST = 100  # letters of what is said of a difference

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]

app = group(NAME, "Show how ours compares with an old service that still answers.", EXAMPLES)


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EXAMPLES)
def mirror(
    context: typer.Context,
    folder: Folder = None,
    env: Environment = None,
    since: Annotated[
        str | None, typer.Option(help="Of the last 1h, 2d; without it, what the live release was compared on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show, of each source that an old service still answers, who acts on it now, how many deliveries the two sides
    agree on, and the first that they do not."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_in(load_settings(app_folder(folder)), env)
    sources = mirrored_sources(settings)
    begin = None if since is None else moment(since, datetime.now(UTC))

    async def look(connection: Connection) -> list[MirrorReport]:
        return [await report(connection, each, begin) for each in sources]

    reports = do(settings, NAME, look)
    if as_json:
        print_json([as_data(each) for each in reports])
        return
    for each in reports:
        _show(each, settings)


@app.command(epilog="Example:  circuit-script mirror show 019b0c6e-7e55-7c4f-a0b7-5a8f6d1f1c11")
def show(
    delivery: Annotated[UUID, typer.Argument(help="Its id, as `circuit-script mirror` shows it.")],
    folder: Folder = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show one delivery: what the old service answered, and each value beside ours."""
    settings = settings_in(load_settings(app_folder(folder)), env)
    found = do(settings, NAME, lambda connection: shown(connection, delivery))
    if as_json:
        print_json(_shown_data(found))
        return
    out = console()
    ours = "" if found.ours_ms is None else f"{found.ours_ms:,.0f} ms, release {found.release}"
    facts = [
        ("delivery", f"{found.delivery} from {found.source}, {day(found.at)}"),
        ("tenant", visible(found.tenant or "nobody's")),
        ("state", f"{found.state}{f': {visible(found.why)}' if found.why else ''}"),
        ("old service", f"{found.old_status or 'no answer'}, {found.old_ms:,.0f} ms"),
        ("ours", ours),
        ("it answered", visible(found.old_answer)),
    ]
    out.print(add_rows(table("what", "is"), facts))
    if found.differences:
        rows = [(visible(each.record), visible(each.field), visible(each.old), visible(each.ours))
                for each in found.differences]  # fmt: skip
        out.print(add_rows(table("record", "field", "old", "ours"), rows))


def mirrored_sources(settings: Settings) -> list[str]:
    """Those of circuit.toml. Raises MirrorRefused where there are none."""
    if not settings.mirror:
        raise MirrorRefused(
            "No source has an old service.", cure="Say where it is: [mirror.gohighlevel] url in circuit.toml."
        )
    return sorted(settings.mirror)


async def report(connection: Connection, source: str, since: datetime | None = None) -> MirrorReport:
    """Since then; without a moment, what the live release was compared on since the old service acts."""
    if since is not None:
        return await report_of(connection, source, since)
    begin = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
    found = await report_of(connection, source, begin, release=await live_of(connection))
    if found.state.acts == OLD and found.state.since is not None and found.state.since > begin:
        return await report_of(connection, source, found.state.since, release=await live_of(connection))
    return found


def as_data(found: MirrorReport) -> dict[str, Any]:
    """A report for scripts."""
    state = {name: value for name, value in asdict(found.state).items() if not name.startswith("old_")}
    numbers = {
        "parity": found.parity, "compared": found.compared, "same": found.same, "different": found.different,
        "incomparable": found.incomparable, "silent": found.silent, "pending": found.pending,
        "unverified": found.unverified, "taken_unverified": found.taken_unverified, "unkept": found.unkept,
        "old_ms": found.old_ms, "ours_ms": found.ours_ms,
    }  # fmt: skip
    examples = [_shown_data(each) for each in found.examples]
    return {**state, "counted_since": found.since, **numbers, "whys": dict(found.whys), "examples": examples}


def parity_said(found: MirrorReport) -> str:
    """``100 % of 1,000``; never rounded up to 100."""
    if found.parity is None:
        return "nothing is compared yet"
    share = "100 %" if found.same == found.compared else f"{min(100 * found.parity, 99.99):.2f} %"
    return f"{share} of {found.compared:,} the same"


def _shown_data(each: Shown) -> dict[str, Any]:
    data = {name: getattr(each, name) for name in Shown.__dataclass_fields__ if name != "differences"}
    fields = Difference.__struct_fields__
    return {**data, "differences": [{name: getattr(one, name) for name in fields} for one in each.differences]}


def _show(found: MirrorReport, settings: Settings) -> None:
    out = console()
    state = found.state
    who = "the old service" if state.acts == OLD else "this app"
    moved = "" if state.since is None else f", since {day(state.since)} by {visible(state.by)}"
    why = f" ({visible(state.reason)})" if state.reason else ""
    counted = {"different": found.different, "incomparable": found.incomparable, "silent": found.silent}
    facts = [
        ("acts", f"{who}{moved}{why}"),
        ("parity", parity_said(found)),
        ("not the same", ", ".join(f"{n:,} {name}" for name, n in counted.items() if n) or "none"),
        *[("", f"{n:,}: {visible(why)}") for why, n in found.whys if why],
        ("waiting", f"{found.pending:,}"),
        ("not kept", f"{_unsigned(found)}, {found.unkept:,} for want of room"),
        ("milliseconds", f"old {_times(found.old_ms)}, ours {_times(found.ours_ms)}"),
        *([("watch", state.watched or f"until {day(state.watch_until)}")] if state.watch_until else []),
    ]
    out.print(add_rows(table(state.source, f"since {day(found.since)}"), facts))
    if found.examples:
        rows = [(str(each.delivery), *_first(each)) for each in found.examples]
        out.print(add_rows(table("delivery", "record", "field", "difference"), rows))
        out.print("one in full: circuit-script mirror show DELIVERY", style="dim")
    if settings.mirror[state.source].compare == {} and state.acts == OLD:
        out.print(f"nothing is compared: say what, under [mirror.{state.source}] compare", style="yellow")


def _unsigned(found: MirrorReport) -> str:
    taken = f" (the old service took {found.taken_unverified:,} of them)" if found.taken_unverified else ""
    return f"{found.unverified:,} not signed as they should be{taken}"


def _first(each: Shown) -> tuple[str, str, str]:
    if not each.differences:
        return "", "", ""
    one = each.differences[0]
    more = f" (and {len(each.differences) - 1} more)" if len(each.differences) > 1 else ""
    return visible(one.record), visible(one.field), visible(one.said)[:WIDEST] + more


def _times(pair: Sequence[float] | None) -> str:
    return "none" if pair is None else f"p50 {pair[0]:,.0f}, p95 {pair[1]:,.0f}"
