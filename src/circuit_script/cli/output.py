"""How every verb speaks: tables and colours for people, JSON for scripts, errors with their page.

Colours are for terminals: they are off when the output is piped, and where NO_COLOR is set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from circuit_script.errors import CircuitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXIT_UNREAD = 141  # as a shell counts it: 128 and SIGPIPE
PIPED_WIDTH = 200  # columns: a table in a file is not cut to a terminal that nobody has
GOOD, WARNING, BAD = "[green]✓[/]", "[yellow]![/]", "[bold red]✗[/]"


def nobody_reads() -> NoReturn:
    """End quietly, as in `circuit-script logs | head`: what is still to be said goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_UNREAD) from None


def console(*, stderr: bool = False) -> Console:
    """Where words for people go."""
    from circuit_script.cli.words import Words  # Rich is large, and who writes JSON or serves has no use for it

    stream = sys.stderr if stderr else sys.stdout
    return Words(stderr=stderr, highlight=False, width=None if stream.isatty() else PIPED_WIDTH)


def print_json(value: Any, *, lines: bool = False) -> None:
    """One JSON document on standard output; with ``lines`` on one line, as JSON Lines has it."""
    text = json.dumps(value, indent=None if lines else 2, ensure_ascii=False, default=_plain)
    print(text, flush=lines)


def table(*headings: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """An empty table. The columns named in ``right`` hold numbers."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return made


def add_rows(to: Table, rows: Iterable[Sequence[object]]) -> Table:
    """Rows of plain values; what looks like markup in them is shown as it is."""
    from rich.markup import escape

    for row in rows:
        to.add_row(*(escape(str(each)) for each in row))
    return to


def visible(text: str) -> str:
    """Text of strangers without what a terminal would obey."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)


def tell_error(error: CircuitError) -> None:
    """The error, and where to read on."""
    print(f"error: {error}\n  more: circuit-script explain {error.page}", file=sys.stderr)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def day(moment: datetime | None) -> str:
    """A moment of this host's clock, to the minute."""
    return "never" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
