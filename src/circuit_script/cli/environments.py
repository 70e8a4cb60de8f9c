"""Which database a verb about releases works on: the app's own, or that of an environment of circuit.toml."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from circuit_script.config import FILE, Settings
from circuit_script.errors import ConfigError
from circuit_script.execution.hardening import governed_environment

OWN = "this app"
# The database that tests make their own on is no secret of production's.
_PLAIN = frozenset({
    "CI", "TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "LOGNAME", "SHELL", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "GITHUB_ACTIONS", "CIRCUIT_TEST_DATABASE_URL",
})  # fmt: skip
_PLAIN_PREFIXES = ("CIRCUIT_", "PYTEST_", "HYPOTHESIS_")
CHOOSES = "PYTEST_ADDOPTS"  # it may leave out tests, and nobody would see that
_SECRET = re.compile(r"URL|DSN|KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|SALT", re.IGNORECASE)
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


def environment_of_tests(settings: Settings) -> dict[str, str]:
    """What the app's tests see of this process's environment: no database, no secret. As for handlers, it is a list of
    what they may see; settings of the platform are among it, and what circuit.toml names."""
    asked = {name: os.environ[name] for name in settings.deploy.test_environment if name in os.environ}
    plain = {
        name: value
        for name, value in os.environ.items()
        if name in _PLAIN or (name.startswith(_PLAIN_PREFIXES) and not _SECRET.search(name) and name != CHOOSES)
    }
    return {**governed_environment(dict(os.environ)), **plain, **asked}
