"""``circuit-script keys``: API keys of endpoints. Each names the tenant that a call is for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import psycopg
import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection, unavailable
from circuit_script.errors import ConfigError
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.keys import create_key, list_keys, revoke_key

NAME = "keys"
EXAMPLES = (
    "Examples:  circuit-script keys create chatbot --tenant acme  ·  circuit-script keys list --json  ·  "
    "circuit-script keys revoke chatbot"
)

Folder = Annotated[Path, typer.Option(help="The app's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
T = TypeVar("T")

app = typer.Typer(
    name=NAME,
    help="Make, list and revoke the API keys of endpoints.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command(epilog="Example:  circuit-script keys create chatbot --tenant acme")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose it is.")] = DEFAULT,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; only its SHA-256 is kept."""
    settings = load_settings(folder)
    if settings.tenants and tenant not in settings.tenants:
        raise ConfigError(
            f"circuit.toml has no tenant {tenant!r}.", cure=f"Add [tenants.{tenant}] to it.", page="unknown-tenant"
        )
    key, made = _do(settings, lambda connection: create_key(connection, tenant, name))
    if as_json:
        print_json({"key": key, **asdict(made)})
        return
    print(key)
    console(stderr=True).print(f"It is shown once. It calls for the tenant {made.tenant!r}: Authorization: Bearer …")


@app.command("list", epilog="Example:  circuit-script keys list --all")
def list_(
    folder: Folder = Path(),
    everything: Annotated[bool, typer.Option("--all", help="Revoked ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the keys: how each begins, whose it is, when it was used."""
    keys = _do(load_settings(folder), lambda connection: list_keys(connection, revoked=everything))
    if as_json:
        print_json([asdict(each) for each in keys])
        return
    shown = table("key", "tenant", "name", "created", "last used", *(["revoked"] if everything else []))
    rows = [(f"{each.prefix}…", each.tenant, each.name, _day(each.created_at), _day(each.last_used_at),
             *([_day(each.revoked_at)] if everything else [])) for each in keys]  # fmt: skip
    console().print(add_rows(shown, rows) if rows else "There is no key yet: circuit-script keys create NAME")


@app.command(epilog="Example:  circuit-script keys revoke chatbot --tenant acme")
def revoke(
    which: Annotated[str, typer.Argument(help="Its name, how it begins, or its id.")],
    tenant: Annotated[str | None, typer.Option(help="Whose it is, where several have that name.")] = None,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Revoke a key. Gateways refuse it within five seconds."""
    gone = _do(load_settings(folder), lambda connection: revoke_key(connection, which.rstrip("…"), tenant))
    if as_json:
        print_json(asdict(gone))
        return
    print(f"revoked: {gone.name} of {gone.tenant} ({gone.prefix}…); gateways refuse it within 5 seconds")


def _do(settings: Settings, what: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        async with looking(settings, NAME) as connection:
            return await what(connection)

    try:
        return asyncio.run(run())
    except psycopg.Error as error:
        raise unavailable(error) from error


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
