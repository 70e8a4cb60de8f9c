"""What `backup` and `restore` show while rows go by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from circuit_script.backup import Progress as Told
from circuit_script.cli.output import console


@contextlib.contextmanager
def shown_progress(verb: str, *, quiet: bool) -> Iterator[Told]:
    """A bar per table on standard error, where somebody watches it."""
    out = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        task = progress.add_task(verb, total=None)

        def told(table: str, done: int, of: int) -> None:
            progress.update(task, description=f"{verb} {table}", completed=done, total=of or 1)

        yield told


def size(bytes_: int) -> str:
    """Bytes for people."""
    number = float(bytes_)
    for unit in ("bytes", "KB", "MB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
