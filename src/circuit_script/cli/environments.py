"""Which database a verb about releases works on: the app's own, or that of an environment of circuit.toml."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from circuit_script.config import FILE, Settings
from circuit_script.errors import ConfigError

OWN = "this app"
Environment = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME", help="There, as [env.NAME] of circuit.toml says; else in the app's own."),
]


def settings_in(settings: Settings, name: str | None) -> Settings:
    """The app's settings with the environment's database. Raises ConfigError for one that is not known or not open."""
    if name is None:
        return settings
    known = settings.env.get(name)
    if known is None:
        there = f"There are {', '.join(sorted(settings.env))}." if settings.env else f"{FILE} names none."
        cure = f'Write to {FILE}: [env.{name}] database_env = "{name.upper().replace("-", "_")}_DATABASE_URL".'
        raise ConfigError(f"There is no environment {name!r}. {there}", cure=cure)
    url = os.environ.get(known.database_env, "")
    if not url:
        raise ConfigError(
            f"Environment {name!r} has no database: the variable {known.database_env} is not set.",
            cure=f"Set {known.database_env} to its URL, as in DATABASE_URL, where you deploy from.",
        )
    return settings.model_copy(update={"database_url": url})


def place(name: str | None) -> str:
    """The environment, for people."""
    return name or OWN


def without_databases(settings: Settings) -> dict[str, str]:
    """This process's environment without the URLs of other environments: the app's tests have no use for them."""
    hidden = {each.database_env for each in settings.env.values()} - {"DATABASE_URL"}
    return {name: value for name, value in os.environ.items() if name not in hidden}
