"""``circuit-script limits``: each handler's limits, and how near to them it came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from circuit_script.cli.app_database import looking
from circuit_script.cli.app_import import import_in_child
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.errors import StartError
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import amount, limits_of
from circuit_script.telemetry.usage import Used, usage_of

NAME = "limits"
EXAMPLES = "Examples:  circuit-script limits  ·  circuit-script limits --all  ·  circuit-script limits --json"
NEAR = 0.8  # of a limit: from here on it is worth a look

Usage = Mapping[tuple[str, str], Used]


@dataclass(frozen=True, slots=True)
class LimitLine:
    """One limit of one handler. ``most`` and ``p95`` are None when no execution is known."""

    handler: str
    limit: str
    ceiling: float
    executions: int
    most: float | None
    p95: float | None

    @property
    def share(self) -> float | None:
        """The most that was used, as a share of the ceiling."""
        return None if self.most is None else self.most / self.ceiling

    @property
    def near(self) -> bool:
        return self.share is not None and self.share >= NEAR


def run(
    folder: Folder = None,
    days: Annotated[float, typer.Option(min=0.01, help="Use is that of the last so many days.")] = 7,
    everything: Annotated[bool, typer.Option("--all", help="Also defaults that were not used.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show each handler's limits, and how near to them it came."""
    settings = load_settings(app_folder(folder))
    lines, unknown = asyncio.run(_look(settings, days))
    if as_json:
        print_json([_as_json(line) for line in lines])
        return
    _say_what_is_known(lines, days, unknown)
    _show(lines, limits_of(settings.limits).as_dict(), everything)


async def _look(settings: Settings, days: float) -> tuple[list[LimitLine], str]:
    """The lines, and why nothing is known of use, if so."""
    manifest = await import_in_child(settings)
    used: Usage = {}
    unknown = ""
    try:
        async with looking(settings, NAME) as connection:
            used = await usage_of(connection, days)
    except StartError as error:
        unknown = error.detail
    return list(_lines(manifest.handlers, used)), unknown


def _lines(handlers: tuple[HandlerSpec, ...], used: Usage) -> Iterator[LimitLine]:
    for handler in handlers:
        for limit, ceiling in handler.limits.as_dict().items():
            found = used.get((handler.name, limit))
            yield LimitLine(
                handler=handler.name,
                limit=limit,
                ceiling=ceiling,
                executions=found.executions if found else 0,
                most=found.most if found else None,
                p95=found.p95 if found else None,
            )


def _as_json(line: LimitLine) -> dict[str, object]:
    return {
        "handler": line.handler,
        "limit": line.limit,
        "ceiling": line.ceiling,
        "executions": line.executions,
        "most": line.most,
        "p95": line.p95,
        "near": line.near,
    }


def _say_what_is_known(lines: list[LimitLine], days: float, unknown: str) -> None:
    if unknown:
        console().print(f"[yellow]![/] Use is not known: {escape(unknown)} Start the app: circuit-script dev.")
    elif lines and not any(line.executions for line in lines):
        console().print(f"Nothing ran in the last {days:g} days.")


def _show(lines: list[LimitLine], defaults: Mapping[str, float], everything: bool) -> None:
    """A table of the lines; unless ``everything`` is wanted, of those that differ from the defaults or were used."""
    out = console()
    if not lines:
        out.print("The app has no handlers.")
        return
    shown = [line for line in lines if everything or line.most or line.ceiling != defaults[line.limit]]
    if shown:
        _show_table(out, shown)
    for line in shown:
        if line.near:
            out.print(
                f"[yellow]![/] {escape(line.handler)} used {line.share:.0%} of {line.limit}: raise it, or use less."
            )
    quiet = dict.fromkeys(line.handler for line in lines)
    for line in shown:
        quiet.pop(line.handler, None)
    if quiet:
        out.print(f"nothing but the defaults: {escape(', '.join(quiet))}", soft_wrap=True)
    if not everything:
        said = ", ".join(f"{name} {amount(name, ceiling)}" for name, ceiling in defaults.items())
        out.print(f"the defaults: {said}  ·  all of them for each handler: --all", style="dim", soft_wrap=True)


def _show_table(out: Console, lines: list[LimitLine]) -> None:
    rows = table("handler", "limit", "ceiling", "most used", "p95", "", right=("ceiling", "most used", "p95", ""))
    before = ""
    for line in lines:
        rows.add_row(
            escape(line.handler) if line.handler != before else "",
            line.limit,
            amount(line.limit, line.ceiling),
            "" if line.most is None else amount(line.limit, line.most),
            "" if line.p95 is None else amount(line.limit, line.p95),
            "" if line.share is None else f"[{'yellow' if line.near else 'dim'}]{line.share:.0%}[/]",
        )
        before = line.handler
    out.print(rows)
