"""The console of every verb that speaks to people."""

from __future__ import annotations

from rich.console import Console

from circuit_script.cli.output import nobody_reads


class Words(Console):
    """A console that ends quietly when its reader has gone."""

    def on_broken_pipe(self) -> None:
        nobody_reads()
