"""``circuit-script secrets``: tokens and keys of vendors. A value is read from standard input, or asked for; never from
the command line, which every user of the host can read."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import BAD, GOOD, add_rows, console, day, print_json, table, visible
from circuit_script.cli.selection import do
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import CircuitError, SecretMissing
from circuit_script.execution.broker.callouts.hosts import Host
from circuit_script.jobs.outside import whoever
from circuit_script.secrets import rotation
from circuit_script.secrets.hosts import HostsTable
from circuit_script.secrets.keys import Keys
from circuit_script.secrets.opened import open_secrets, store_of
from circuit_script.secrets.places import EVERYBODY, MAX_VALUE, Environment, check_name, check_tenant
from circuit_script.secrets.table import One

NAME = "secrets"
EXAMPLES = (
    "Examples:  circuit-script secrets set gohighlevel.token --tenant acme  ·  "
    "circuit-script secrets set crm.key --hosts api.example.com < key.txt  ·  circuit-script secrets list  ·  "
    "circuit-script secrets rotate-key"
)
NOT_SHOWN = "A value is shown with --show only."

Which = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, like gohighlevel.token.")]
ForTenant = Annotated[str | None, typer.Option("--tenant", help="This tenant's own; everybody's where none is named.")]
Hosts = Annotated[
    str | None,
    typer.Option(help="Where handlers may have it sent: hosts, separated by commas; '' for nowhere."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
T = TypeVar("T")

app = group(NAME, "Put in vendors' tokens and keys, sealed; see which there are; change the key that seals.", EXAMPLES)


@app.command("set", epilog="Examples:  circuit-script secrets set crm.key --tenant acme  ·  … set crm.key < key.txt")
def set_(
    name: Which, tenant: ForTenant = None, hosts: Hosts = None, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Put a value in, in the place of the one before. It is asked for; from a pipe, all of it is taken."""
    settings = load_settings(app_folder(folder))
    whose = _whose(settings, tenant)
    check_name(name)
    allowed = None if hosts is None else _hosts(hosts)
    value = _value()

    async def put(connection: Connection) -> None:
        async with aclosing(open_secrets(settings, One(connection))) as secrets:
            await secrets.put(whose, name, value, whoever())
        if allowed is not None:
            await HostsTable(One(connection)).write(whose, name, allowed, whoever())

    do(settings, NAME, put)
    said = f"set: {_named(whose, name)}; processes that have read it before ask again within 5 minutes"
    _tell({"name": name, "tenant": whose, "hosts": allowed}, said, as_json)


@app.command(epilog="Example:  circuit-script secrets allow crm.key --hosts api.example.com,*.example.org")
def allow(
    name: Which,
    hosts: Annotated[str, typer.Option(help="Hosts, separated by commas; '' for nowhere.")],
    tenant: ForTenant = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Say where handlers may have a secret sent, wherever the secret itself lies."""
    settings = load_settings(app_folder(folder))
    whose, allowed = _whose(settings, tenant), _hosts(hosts)
    check_name(name)
    do(settings, NAME, lambda connection: HostsTable(One(connection)).write(whose, name, allowed, whoever()))
    where = ", ".join(allowed) or "nowhere"
    _tell({"name": name, "tenant": whose, "hosts": allowed}, f"{_named(whose, name)} may be sent to: {where}", as_json)


@app.command("list", epilog="Example:  circuit-script secrets list --json")
def list_(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show which there are: names, whose, versions, since when, where they may be sent. Never a value."""
    settings = load_settings(app_folder(folder))

    async def listed(connection: Connection) -> list[dict[str, Any]]:
        async with aclosing(store_of(settings, One(connection), Keys(settings))) as store:
            stored = await store.all()
        hosts = await HostsTable(One(connection)).all()
        found = [("environment", each) for each in Environment(settings.tenant_names).there(settings.tenant_names)]
        found += [(settings.secrets.store, each) for each in stored]
        return [
            {**asdict(kept), "store": place, "hosts": list(hosts.get((kept.tenant, kept.name), ()))}
            for place, kept in found
        ]

    rows = do(settings, NAME, listed)
    if as_json:
        print_json(rows)
        return
    shown = table("name", "tenant", "version", "put in", "by", "in", "may be sent to")
    cells = [
        (visible(each["name"]), visible(each["tenant"]) or "everybody", each["version"] or "",
         day(each["created_at"]) if each["created_at"] else "", visible(each["by"] or ""), each["store"],
         ", ".join(each["hosts"]))
        for each in rows
    ]  # fmt: skip
    console().print(add_rows(shown, cells) if rows else "There is none yet: circuit-script secrets set NAME")


@app.command(epilog="Example:  circuit-script secrets get crm.key --tenant acme --show")
def get(
    name: Which,
    tenant: ForTenant = None,
    show: Annotated[bool, typer.Option("--show", help="Yes, print it.")] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Print a value, as the platform would find it: the tenant's own, else everybody's. Only with --show."""
    if not show:
        raise typer.BadParameter(NOT_SHOWN, param_hint="--show")
    settings = load_settings(app_folder(folder))
    whose = _whose(settings, tenant)

    async def got(connection: Connection) -> str:
        async with aclosing(open_secrets(settings, One(connection))) as secrets:
            return await secrets.get(whose, name)

    value = do(settings, NAME, got)
    _tell({"name": name, "tenant": whose, "value": value}, value, as_json)


@app.command(epilog="Example:  circuit-script secrets delete crm.key --tenant acme")
def delete(name: Which, tenant: ForTenant = None, folder: Folder = None, as_json: AsJson = False) -> None:
    """Delete a value, and where it may be sent."""
    settings = load_settings(app_folder(folder))
    whose = check_tenant(tenant or EVERYBODY)  # also of a tenant that there is no more

    async def gone(connection: Connection) -> None:
        # First: what is put in under this name later must not go where this one went.
        await HostsTable(One(connection)).write(whose, check_name(name), (), whoever())
        async with aclosing(store_of(settings, One(connection), Keys(settings))) as store:
            there = await store.delete(whose, name)
        if not there:
            raise SecretMissing(f"There is no {_named(whose, name)}.", cure="Look at circuit-script secrets list.")

    do(settings, NAME, gone)
    _tell({"name": name, "tenant": whose, "deleted": True}, f"deleted: {_named(whose, name)}", as_json)


@app.command("rotate-key", epilog="Example:  circuit-script secrets rotate-key")
def rotate_key(folder: Folder = None, as_json: AsJson = False) -> None:
    """Seal everything again with a new key, while it is at work. Who interrupts it begins again where it was left.

    A key file gets the new key by itself. Of CIRCUIT_SECRETS_KEY=NEW,OLD the first one seals.
    """
    settings = load_settings(app_folder(folder))

    async def rotated(connection: Connection) -> rotation.Rotated:
        keys = Keys(settings)
        if keys.in_file is None:
            cipher = keys.cipher()
        else:
            cipher = rotation.begin_in_file(keys, await rotation.used_keys(connection))
        done = await _with_a_bar(lambda told: rotation.rotate(connection, cipher, told), quiet=as_json)
        rotation.end_in_file(keys)
        return done

    done = do(settings, NAME, rotated)
    if as_json:
        print_json(asdict(done))
    else:
        print(f"sealed again: {done.sealed}")
        for each in done.broken:
            print(visible(each), file=sys.stderr)
    if done.broken:
        raise typer.Exit(1)


@app.command(epilog="Example:  circuit-script secrets check --json")
def check(folder: Folder = None, as_json: AsJson = False) -> None:
    """Ask the store, and open everything that is sealed. Exit code 1 when something is wrong."""
    settings = load_settings(app_folder(folder))

    async def checked(connection: Connection) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        try:
            async with aclosing(store_of(settings, One(connection), Keys(settings))) as place:
                count = len(await place.all())
            found.append((f"{place.name} answers; secrets: {count}", None))
        except CircuitError as error:
            found.append((settings.secrets.store, str(error)))
        try:
            if await rotation.used_keys(connection):
                wrong = await rotation.broken(connection, Keys(settings).cipher())
                found += [("sealed", each) for each in wrong]
                if not wrong:
                    found.append(("everything that is sealed opens", None))
        except CircuitError as error:
            found.append(("the key", str(error)))
        return found

    found = do(settings, NAME, checked)
    if as_json:
        print_json([{"what": what, "wrong": wrong} for what, wrong in found])
    else:
        for what, wrong in found:
            console().print(GOOD if wrong is None else BAD, end=" ")
            console().print(what if wrong is None else f"{what}: {visible(wrong)}", markup=False)
    if any(wrong is not None for _, wrong in found):
        raise typer.Exit(1)


async def _with_a_bar(what: Callable[[Callable[[int, int], None]], Awaitable[T]], *, quiet: bool) -> T:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    out = console(stderr=True)
    columns = (TextColumn("sealing again"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        task = progress.add_task("sealing", total=None)
        return await what(lambda done, of: progress.update(task, completed=done, total=of))


def _value() -> str:
    """Raises SecretMissing for none, and for one that is too long."""
    if sys.stdin.isatty():
        value = str(typer.prompt("Value", hide_input=True, err=True))
    else:
        value = sys.stdin.read(MAX_VALUE + 2)
        value = value.removesuffix("\n").removesuffix("\r") if value.count("\n") == 1 else value
    if not value.strip():
        raise SecretMissing("Nothing was given.", cure="Type it, or pipe it in: circuit-script secrets set NAME < file")
    if len(value) > MAX_VALUE:
        raise SecretMissing("It is too long.", cure=f"A secret has {MAX_VALUE:,} characters at most.")
    return value


def _hosts(said: str) -> tuple[str, ...]:
    hosts = tuple(each.strip() for each in said.split(",") if each.strip())
    try:
        for each in hosts:
            Host.of(each)
    except ValueError as error:
        raise typer.BadParameter(f"{error}: like api.example.com, or *.example.org", param_hint="--hosts") from None
    return hosts


def _whose(settings: Settings, tenant: str | None) -> str:
    """The tenant, "" for everybody. Raises SecretMissing for one that there is not."""
    if tenant is None:
        return EVERYBODY
    known = list(settings.tenant_names)
    if tenant not in known:
        near = get_close_matches(tenant, known, n=1)
        raise SecretMissing(
            f"There is no tenant {tenant!r}.",
            cure=f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}.",
            page="unknown-tenant",
        )
    return check_tenant(tenant)


def _named(tenant: str, name: str) -> str:
    return f"{name} of {tenant}" if tenant else f"{name} of everybody"


def _tell(fields: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        print(words)
