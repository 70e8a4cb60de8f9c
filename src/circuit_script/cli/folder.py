"""Where the app is that a verb works on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.config import FILE
from circuit_script.endpoints.address import find_folder
from circuit_script.errors import NoApp
from circuit_script.execution.authoring.importing import has_app

Folder = Annotated[Path | None, typer.Option(help="The app's folder, where it is neither this one nor one above it.")]


def app_folder(given: Path | None) -> Path:
    """The folder that was given; else the nearest one from here upwards that has a circuit.toml, or this one if it has
    an app. Raises NoApp, before anything is made there."""
    folder = (given or find_folder(Path()) or Path()).resolve()
    name = os.environ.get("CIRCUIT_APP", "app")
    if (folder / FILE).is_file() or has_app(folder, name):
        return folder
    raise NoApp(
        f"{folder} has no {FILE} and no {name}/.",
        cure="Go to the app (cd), name its folder (--folder), or make one: circuit-script init NAME.",
    )
