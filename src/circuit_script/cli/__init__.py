"""The command line: one file per verb, each a door to the same functions that everything else calls."""

from __future__ import annotations

import sys

import typer

from circuit_script.cli import init, serve, status
from circuit_script.cli.demo import command as demo
from circuit_script.errors import CircuitError

EXIT_ERROR = 1

app = typer.Typer(
    name="circuit-script",
    help="Governed triggers for AI agents and automations.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for verb in (init, serve, status, demo):
    app.command(verb.NAME, epilog=verb.EXAMPLES)(verb.run)


def main() -> None:
    """Run one verb. Exit codes: 0 done, 1 an error that was explained, 2 a wrong command line, 130 interrupted."""
    try:
        app()
    except CircuitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
