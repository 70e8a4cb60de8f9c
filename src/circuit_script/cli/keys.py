"""``circuit-script keys``: API keys of endpoints. Each names the tenant that a call is for."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from typing import Annotated, TypeVar

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, day, print_json, table
from circuit_script.cli.selection import do
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.errors import KeyRefused
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.keys import create_key, list_keys, revoke_key

NAME = "keys"
EXAMPLES = (
    "Examples:  circuit-script keys create chatbot --tenant acme  ·  circuit-script keys list --json  ·  "
    "circuit-script keys revoke chatbot"
)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
T = TypeVar("T")

app = group(NAME, "Make, list and revoke the API keys of endpoints.", EXAMPLES)


@app.command(epilog="Example:  circuit-script keys create chatbot --tenant acme")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose it is.")] = DEFAULT,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; only its SHA-256 is kept."""
    settings = load_settings(app_folder(folder))
    _must_be_known(tenant, settings)
    key, made = do(settings, NAME, lambda connection: create_key(connection, tenant, name))
    if as_json:
        print_json({"key": key, **asdict(made)})
        return
    print(key)
    console(stderr=True).print(f"It is shown once. It calls for the tenant {made.tenant!r}: Authorization: Bearer …")


@app.command("list", epilog="Example:  circuit-script keys list --all")
def list_(
    folder: Folder = None,
    everything: Annotated[bool, typer.Option("--all", help="Revoked ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the keys: how each begins, whose it is, when it was used."""
    keys = do(load_settings(app_folder(folder)), NAME, lambda connection: list_keys(connection, revoked=everything))
    if as_json:
        print_json([asdict(each) for each in keys])
        return
    shown = table("key", "tenant", "name", "created", "last used", *(["revoked"] if everything else []))
    rows = [(f"{each.prefix}…", each.tenant, each.name, day(each.created_at), day(each.last_used_at),
             *([day(each.revoked_at)] if everything else [])) for each in keys]  # fmt: skip
    console().print(add_rows(shown, rows) if rows else "There is no key yet: circuit-script keys create NAME")


@app.command(epilog="Example:  circuit-script keys revoke chatbot --tenant acme")
def revoke(
    which: Annotated[str, typer.Argument(help="Its name, how it begins, or its id.")],
    tenant: Annotated[str | None, typer.Option(help="Whose it is, where several have that name.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key. Gateways refuse it within five seconds."""
    gone = do(
        load_settings(app_folder(folder)), NAME, lambda connection: revoke_key(connection, which.rstrip("…"), tenant)
    )
    if as_json:
        print_json(asdict(gone))
        return
    print(f"revoked: {gone.name} of {gone.tenant} ({gone.prefix}…); gateways refuse it within 5 seconds")


def _must_be_known(tenant: str, settings: Settings) -> None:
    """A key of a tenant that there is not would call for nobody. Raises KeyRefused."""
    known = list(settings.tenants) or [DEFAULT]
    if tenant not in known:
        near = get_close_matches(tenant, known, n=1)
        cure = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
        raise KeyRefused(
            f"There is no tenant {tenant!r}.",
            cure=f"{cure} Others stand in circuit.toml: [tenants.{tenant}].",
            page="unknown-tenant",
        )
