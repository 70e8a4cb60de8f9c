"""The demo's findings for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from circuit_script.cli.demo.findings import Findings

_COLOURS = {"hot": "red", "warm": "yellow", "cold": "cyan"}


def show(console: Console, findings: Findings) -> None:
    """The two tables, the delays, and what was given up and why."""
    console.print(_counts(findings))
    console.print(_best(findings))
    if findings.p50_ms is not None and findings.p95_ms is not None:
        console.print(
            f"delivery to outcome: p50 {findings.p50_ms:.0f} ms, p95 {findings.p95_ms:.0f} ms"
            f" · {findings.alerts} alerts about hot leads, none twice · {findings.seconds:.0f} s in all"
            if not findings.alerts_doubled
            else f"[red]{findings.alerts_doubled} alerts arrived twice[/]"
        )
    for record, attempts, reason in findings.dead:
        console.print(f"dead letter: [bold]{escape(record)}[/] after {attempts} attempts: {escape(reason)}")


def what_next(console: Console, address: str, folder: str, kept: bool) -> None:
    """What a newcomer would do now."""
    console.print()
    if kept:
        console.print(f"status page: [bold]{address}/[/]   app: [bold]{folder}[/]   Ctrl-C ends it")
        console.print(f"try: [bold]circuit-script status --folder {folder}[/]")
    else:
        console.print("look around while it runs: [bold]KEEP=1 make demo[/] (status page, the app's folder)")
        console.print("make your own app: [bold]circuit-script init acme && cd acme && circuit-script serve[/]")


def _counts(findings: Findings) -> Table:
    table = Table(title="What became of the deliveries", title_justify="left")
    table.add_column("")
    table.add_column("found", justify="right")
    table.add_column("must be", justify="right")
    table.add_column("")
    for count in findings.counts:
        mark = "[green]✓[/]" if count.right else "[bold red]✗[/]"
        table.add_row(count.name, f"{count.found:,}", f"{count.expected:,}", mark)
    return table


def _best(findings: Findings) -> Table:
    table = Table(title="The ten best leads, as GoHighLevel shows them", title_justify="left")
    for heading in ("name", "city", "score", "grade", "band", "why"):
        table.add_column(heading, justify="right" if heading == "score" else "left", overflow="fold")
    for lead in findings.best:
        colour = _COLOURS.get(lead.band, "default")
        why = escape(" · ".join(lead.reasons[:3]))
        table.add_row(
            escape(lead.name), escape(lead.city), str(lead.score), lead.grade, f"[{colour}]{lead.band}[/]", why
        )
    return table
