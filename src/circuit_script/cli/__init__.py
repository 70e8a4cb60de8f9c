"""The command line: one file per verb, each a door to the same functions that everything else calls."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from circuit_script.cli.output import nobody_reads, tell_error
from circuit_script.cli.verbs import Verbs
from circuit_script.errors import CircuitError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="circuit-script",
    cls=Verbs,
    help="Governed triggers for AI agents and automations.",
    epilog="Begin with:  circuit-script init acme && cd acme && circuit-script dev  ·  "
    "Each verb has examples in its own --help.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # reads archives and mail headers, which no verb needs

        print(version("circuit-script"))
        raise typer.Exit


@app.callback()
def circuit_script(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Governed triggers for AI agents and automations."""


def main() -> None:
    """Run one verb. Exit codes: 0 done, 1 an error that was explained, 2 a wrong command line, 130 interrupted,
    141 whoever read has seen enough."""
    try:
        app()
    except CircuitError as error:
        tell_error(error)
        raise SystemExit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:
        _say_the_rest()


def _say_the_rest() -> None:
    """Print what is still held back, while Python would not yet complain that nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads()
