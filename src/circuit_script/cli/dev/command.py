"""``circuit-script dev``: the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from circuit_script.cli.dev.session import DevSession
from circuit_script.config import Settings, load_settings
from circuit_script.execution.hardening import hide_from_children

NAME = "dev"
EXAMPLES = "Examples:  circuit-script dev  ·  circuit-script dev --port 0  ·  circuit-script dev --folder ../acme"


def run(
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    port: Annotated[int | None, typer.Option(help="Port of the gateway (0 picks a free one).")] = None,
) -> None:
    """Run the app while you write it: what you save is live in under a second, errors are shown once and clearly, and
    what the handlers log is shown as it happens. Ctrl-C stops in order and exits 0; a second one stops at once (130).

    The app need not import at first: dev waits for the fix. Webhooks signed by `circuit-script send` are accepted.
    """
    hide_from_children()

    def load() -> Settings:
        settings = load_settings(folder)
        if port is None:
            return settings
        overrides: dict[str, Any] = {"gateway": {**settings.gateway.model_dump(), "port": port}}
        return load_settings(folder, **overrides)

    uvloop.run(DevSession(load).run())
