"""``circuit-script dev``: the verb."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from circuit_script.cli.dev.session import DevSession
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.serve import ports
from circuit_script.config import Settings, load_settings
from circuit_script.execution.hardening import hide_from_children

NAME = "dev"
EXAMPLES = "Examples:  circuit-script dev  ·  circuit-script dev --port 0  ·  circuit-script dev --folder ../acme"


def run(
    folder: Folder = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway (0 picks a free one).")] = None,
) -> None:
    """Run the app while you write it: what you save is live in under a second, errors are shown once and clearly, and
    what the handlers log is shown as it happens. Ctrl-C stops in order and exits 0; a second one stops at once (130).

    The app need not import at first: dev waits for the fix. Webhooks signed by `circuit-script send` are accepted.
    """
    hide_from_children()
    here = app_folder(folder)

    def load() -> Settings:
        return load_settings(here, **ports(port))

    uvloop.run(DevSession(load).run())
