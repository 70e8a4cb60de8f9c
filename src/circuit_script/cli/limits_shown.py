"""How ``circuit-script limits`` tells a person what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from circuit_script.cli.output import add_rows, console, table
from circuit_script.governor import amount

if TYPE_CHECKING:
    from circuit_script.cli.limits import LimitLine, Look


def show(look: Look, days: float, everything: bool) -> None:
    """The limits that differ from the defaults or were used, or with ``everything`` all of them; then what came near,
    what was crossed, and who used most."""
    out = console()
    if look.unknown:
        out.print(f"[yellow]![/] Use is not known: {escape(look.unknown)} Start the app: circuit-script dev.")
    elif look.lines and not any(line.executions for line in look.lines):
        out.print(f"Nothing ran in the last {days:g} days.")
    for cut in look.cuts:
        out.print(f"[yellow]![/] {escape(str(cut))}", soft_wrap=True)
    if not look.lines:
        out.print("The app has no handlers.")
        return
    _show_limits(out, look, everything)
    _show_near(out, look)
    _show_breaches(out, look)
    _show_users(out, look)


def _show_limits(out: Console, look: Look, everything: bool) -> None:
    shown = [line for line in look.lines if everything or _worth(line, look)]
    if shown:
        _show_table(out, shown)
    for line in shown:
        if line.near:
            cure = "does what it writes begin it again?" if line.limit == "depth" else "raise it, or use less."
            out.print(f"[yellow]![/] {escape(line.handler)} used {line.share:.0%} of {line.limit}: {cure}")
    quiet = dict.fromkeys(line.handler for line in look.lines)
    for line in shown:
        quiet.pop(line.handler, None)
    if quiet:
        out.print(f"nothing but the defaults: {escape(', '.join(quiet))}", soft_wrap=True)
    if not everything:
        said = ", ".join(f"{name} {amount(name, ceiling)}" for name, ceiling in look.defaults.items())
        out.print(f"the defaults: {said}  ·  all of them for each handler: --all", style="dim", soft_wrap=True)


def _worth(line: LimitLine, look: Look) -> bool:
    used = bool(line.most) and not (line.limit == "depth" and line.most == 1)  # every execution is at least its own
    return used or line.ceiling != look.defaults[line.limit]


def _show_table(out: Console, lines: Sequence[LimitLine]) -> None:
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


def _show_near(out: Console, look: Look) -> None:
    if look.near:
        rows = table("near misses", "limit", "tenant", "times", "nearest", "execution", right=("times", "nearest"))
        out.print()
        out.print(
            add_rows(
                rows,
                ((n.handler, n.limit, n.tenant, f"{n.times:,}", f"{n.share:.0%}", n.execution) for n in look.near),
            )
        )


def _show_breaches(out: Console, look: Look) -> None:
    if look.breaches:
        rows = table("over a limit, or in a loop", "limit", "tenant", "times", "the last one", right=("times",))
        out.print()
        out.print(
            add_rows(
                rows,
                ((each.handler, each.limit, each.tenant, f"{each.times:,}", each.reason) for each in look.breaches),
            )
        )


def _show_users(out: Console, look: Look) -> None:
    if look.users:
        numbers = ("executions", "wall time", "CPU", "callouts", "tokens", "cost")
        rows = table("who uses most", "handler", *numbers, right=numbers)
        out.print()
        out.print(
            add_rows(
                rows,
                (
                    (
                        each.tenant,
                        each.handler,
                        f"{each.executions:,}",
                        amount("wall_time", each.wall_time),
                        amount("cpu_time", each.cpu_time),
                        f"{each.callouts:,}",
                        f"{each.llm_tokens:,}",
                        amount("llm_cost", each.llm_cost),
                    )
                    for each in look.users
                ),
            )
        )
