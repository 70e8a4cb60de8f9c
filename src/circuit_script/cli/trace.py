"""``circuit-script trace``: what an execution did, from the delivery to its effects, and how long each step took."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, visible
from circuit_script.cli.selection import AsJson, do
from circuit_script.config import load_settings
from circuit_script.db.pool import Connection
from circuit_script.telemetry.traces import Trace, find_executions, latest_execution, read_trace, waterfall

NAME = "trace"
EXAMPLES = (
    "Examples:  circuit-script trace  ·  circuit-script trace 019f…  ·  "
    "circuit-script trace 4bf92f3577b34da6a3ce929d0e0e4736 --json  ·  circuit-script trace 019f… --tenant acme"
)
MOST = 20  # executions that are shown at once


def run(
    identifier: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="An execution's, a delivery's, an effect's or a trace's id; none: the last execution."
        ),
    ] = None,
    folder: Folder = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant, read as that tenant may.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an execution did, step by step, and how long each step took.

    From the delivery on: taken in, queued, loaded, what the handler asked (queries, writes, callouts, models with
    tokens and cost), committed, and each effect until its vendor has it.
    """
    wanted = None if identifier is None else _id(identifier)

    async def look(connection: Connection) -> list[Trace]:
        found = [await read_trace(connection, each, tenant) for each in await find(connection)]
        return [each for each in found if each is not None]

    async def find(connection: Connection) -> list[UUID]:
        if wanted is None:
            return await latest_execution(connection, tenant)
        return await find_executions(connection, wanted, tenant, MOST)

    traces = do(load_settings(app_folder(folder)), NAME, look)
    if as_json:
        print_json([_document(each) for each in traces])
        return
    out = console()
    for each in traces:
        _show(out, each)
    if not traces:
        out.print(
            "There is no execution yet."
            if wanted is None
            else "No execution is known by that id: none began yet, or it is older than the ledger keeps."
        )
    elif len(traces) == MOST:
        out.print(f"These are the first {MOST}; a trace of more is shown whole where it is exported to.", style="dim")


def _id(said: str) -> UUID:
    """Raises BadParameter."""
    try:
        return UUID(said)
    except ValueError:
        raise typer.BadParameter(
            f"{said!r} is no id: one has 32 hexadecimal digits, with or without hyphens.", param_hint="ID"
        ) from None


def _show(out: Console, trace: Trace) -> None:
    colour = "green" if trace.status in ("succeeded", "echo") else "red"
    out.print(
        Text.assemble((visible(trace.handler), "bold cyan"), "  ", (trace.status, colour), f"  {visible(trace.tenant)}")
    )
    out.print(f"execution {trace.execution}  trace {trace.trace_id}", style="dim", soft_wrap=True)
    if trace.links:
        out.print(f"its events belong to {len(trace.links)} traces: {', '.join(trace.links[:3])}…", style="dim")
    if trace.reason:
        out.print(Text(visible(trace.reason), style="red"), soft_wrap=True)
    for line in waterfall(trace, out.width):
        out.print(Text(line), no_wrap=True, crop=False, soft_wrap=True)
    if not trace.complete:
        out.print(
            "What its handler asked was not kept: of those that succeed, [traces] per_second are.",
            style="dim",
            markup=False,
        )
    out.print()


def _document(trace: Trace) -> dict[str, Any]:
    return {**asdict(trace), "spans": [asdict(each) for each in trace.spans]}
