"""``circuit-script people``: who may sign in to the dashboard and the API, and what each may do for whom."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer

from circuit_script import access
from circuit_script.access import ALL, Account, Role, Token
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, day, print_json, table, visible
from circuit_script.cli.selection import do
from circuit_script.cli.verbs import group
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import PeopleRefused
from circuit_script.jobs.outside import whoever
from circuit_script.settings_see import DashboardSettings

NAME = "people"
EXAMPLES = (
    "Examples:  circuit-script people link  ·  circuit-script people add ann@example.com  ·  "
    "circuit-script people grant ann@example.com developer --tenant acme  ·  circuit-script people list"
)

Who = Annotated[str, typer.Argument(metavar="NAME", help="The name of the account, an e-mail address.")]
ForTenant = Annotated[str | None, typer.Option("--tenant", help="For this tenant; '*' for all, those to come, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
T = TypeVar("T")

app = group(NAME, "Say who may sign in, and what each may do for which tenant.", EXAMPLES)


@app.command(epilog="Example:  circuit-script people add ann@example.com --role developer --tenant acme")
def add(
    name: Who,
    role: Annotated[Role | None, typer.Option(help="What the person may do.")] = None,
    tenant: ForTenant = None,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for a password; from a pipe, its first line is taken.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Make an account. Without a password it signs in by one-time links: circuit-script people link NAME."""
    settings = load_settings(app_folder(folder))
    where = None if role is None else _tenant(settings, tenant)
    if role is None and tenant is not None:
        raise typer.BadParameter("it says for whom a role is: --role", param_hint="--tenant")
    said = _password() if password else None

    async def make(connection: Connection) -> Account:
        async with connection.transaction():
            account = await access.add_person(connection, name, whoever(), password=said)
            if role is not None and where is not None:
                await access.grant(connection, account.person.name, where, role, whoever())
            return await access.find_person(connection, account.person.name)

    account = do(settings, NAME, make)
    if as_json:
        print_json(_plain(account))
        return
    print(f"added: {account.person.name}{_roles(account, before=', ')}")
    if not account.has_password:
        print(f"they sign in by a one-time link: circuit-script people link {account.person.name}")


@app.command("list", epilog="Example:  circuit-script people list --json")
def list_(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show every account: its roles, whether it has a password, when it signed in last."""
    found = do(load_settings(app_folder(folder)), NAME, access.list_people)
    if as_json:
        print_json([_plain(each) for each in found])
        return
    shown = table("name", "roles", "password", "signed in", "sessions", right=("sessions",))
    rows = [(visible(each.person.name), visible(_roles(each)) or "none", "yes" if each.has_password else "no",
             day(each.signed_in_at), each.sessions) for each in found]  # fmt: skip
    console().print(add_rows(shown, rows) if rows else "There is nobody yet: circuit-script people link")


@app.command(epilog="Example:  circuit-script people remove ann@example.com")
def remove(name: Who, folder: Folder = None, as_json: AsJson = False) -> None:
    """Remove an account with its roles, sessions and tokens. What the person did stays written down."""
    do(load_settings(app_folder(folder)), NAME, lambda connection: access.remove_person(connection, name))
    _tell({"removed": name}, f"removed: {name}", as_json)


@app.command(epilog="Examples:  circuit-script people password ann@example.com  ·  … password ann@example.com --none")
def password(
    name: Who,
    none: Annotated[bool, typer.Option("--none", help="Take it away: only one-time links sign in then.")] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Set the password of an account; from a pipe, the first line is taken. All its sessions end."""
    settings = load_settings(app_folder(folder))
    do(settings, NAME, lambda connection: access.find_person(connection, name))
    new = None if none else _password()
    do(settings, NAME, lambda connection: access.set_password(connection, name, new))
    said = f"{name} has {'no' if none else 'a new'} password; all sessions of the account have ended"
    _tell({"name": name, "has_password": not none}, said, as_json)


@app.command(epilog="Example:  circuit-script people grant ann@example.com operator --tenant acme")
def grant(
    name: Who,
    role: Annotated[Role, typer.Argument(help="What the person may do there.")],
    tenant: ForTenant = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Give a role for a tenant, in the place of the one that the account has there. All its sessions end."""
    settings = load_settings(app_folder(folder))
    where = _tenant(settings, tenant)
    do(settings, NAME, lambda connection: access.grant(connection, name, where, role, whoever()))
    _tell({"name": name, "tenant": where, "role": role}, f"{name} is {role.value} of {_named(where)}", as_json)


@app.command(epilog="Example:  circuit-script people revoke ann@example.com --tenant acme")
def revoke(name: Who, tenant: ForTenant = None, folder: Folder = None, as_json: AsJson = False) -> None:
    """Take a role away. All sessions of the account end."""
    settings = load_settings(app_folder(folder))
    where = _tenant(settings, tenant)
    do(settings, NAME, lambda connection: access.revoke(connection, name, where))
    _tell({"name": name, "tenant": where, "role": None}, f"{name} has no role for {_named(where)} any more", as_json)


@app.command(epilog="Examples:  circuit-script people link  ·  circuit-script people link ann@example.com")
def link(
    name: Annotated[str | None, typer.Argument(help="Whose; the owner's where nobody is named.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The dashboard's address, where it is not that of circuit.toml.")
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Print an address that signs somebody in: once, within ten minutes. The first owner is made by it."""
    settings = load_settings(app_folder(folder))
    where = url or address_of(settings.dashboard)
    made = do(settings, NAME, lambda connection: access.one_time_link(connection, where, name, by=whoever()))
    if as_json:
        print_json({"link": made})
        return
    print(made)
    console(stderr=True).print("It works once, for ten minutes. Whoever opens it is signed in.")


@app.command("sign-out", epilog="Example:  circuit-script people sign-out ann@example.com")
def sign_out(name: Who, folder: Folder = None, as_json: AsJson = False) -> None:
    """End all sessions of an account."""

    async def end(connection: Connection) -> int:
        account = await access.find_person(connection, name)
        return await access.sign_out_everywhere(connection, account.person.id)

    ended = do(load_settings(app_folder(folder)), NAME, end)
    _tell({"name": name, "ended": ended}, f"ended: {ended}", as_json)


@app.command(epilog="Examples:  circuit-script people token ann@example.com laptop --role viewer --days 90")
def token(
    name: Who,
    label: Annotated[str, typer.Argument(help="What the token is for.")],
    role: Annotated[Role | None, typer.Option(help="It may do no more than this.")] = None,
    days: Annotated[float | None, typer.Option(min=0.01, max=3650, help="It ends after so many days.")] = None,
    revoked: Annotated[bool, typer.Option("--revoke", help="Revoke the one of that label, or that begins so.")] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Make a personal token for programs, or revoke one. It is shown once; only its SHA-256 is kept."""
    settings = load_settings(app_folder(folder))
    if revoked:
        return _revoke_token(settings, name, label, as_json)
    lasts = None if days is None else days * 86400
    made, kept = do(
        settings, NAME, lambda connection: access.make_token(connection, name, label, most=role, lasts=lasts)
    )
    if as_json:
        print_json({"token": made, **asdict(kept)})
        return
    print(made)
    console(stderr=True).print(f"It is shown once. It acts as {kept.person}: Authorization: Bearer …")


@app.command(epilog="Example:  circuit-script people tokens")
def tokens(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show the personal tokens: how each begins, whose it is, when it was used, when it ends."""
    found: list[Token] = do(load_settings(app_folder(folder)), NAME, access.list_tokens)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    shown = table("token", "person", "for", "at most", "last used", "ends")
    rows = [(f"{each.prefix}…", each.person, visible(each.name), each.most or "all roles", day(each.last_used_at),
             day(each.ends_at)) for each in found]  # fmt: skip
    console().print(add_rows(shown, rows) if rows else "There is none yet: circuit-script people token NAME LABEL")


def address_of(dashboard: DashboardSettings) -> str:
    """Where people reach the dashboard."""
    host = "127.0.0.1" if dashboard.host in ("0.0.0.0", "::", "") else dashboard.host
    return dashboard.url or f"http://{f'[{host}]' if ':' in host else host}:{dashboard.port}"


def _revoke_token(settings: Settings, name: str, label: str, as_json: bool) -> None:
    async def end(connection: Connection) -> None:
        account = await access.find_person(connection, name)
        await access.revoke_token(connection, account.person.id, label.rstrip("…"))

    do(settings, NAME, end)
    _tell({"name": name, "revoked": label}, f"revoked: {label}", as_json)


def _tell(fields: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        print(words)


def _tenant(settings: Settings, said: str | None) -> str:
    """For whom a role is. Raises BadParameter where that is not clear, PeopleRefused for a tenant that is none."""
    if said is None:
        if len(settings.tenants) > 1:
            raise typer.BadParameter("say for which tenant, or '*' for all", param_hint="--tenant")
        return ALL
    known = list(settings.tenants)
    if said != ALL and known and said not in known:
        raise PeopleRefused(
            f"There is no tenant {said!r}.",
            cure=f"There are {', '.join(known)}, and '*' for all.",
            page="unknown-tenant",
        )
    return said


def _password() -> str:
    """Never from the command line, where every user of the host could read it."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    found: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return found


def _plain(account: Account) -> dict[str, Any]:
    fields = asdict(account)
    del fields["person"]
    person = account.person
    return {"id": person.id, "name": person.name, "roles": dict(person.memberships), **fields}


def _roles(account: Account, *, before: str = "") -> str:
    roles = account.person.memberships.items()
    return before * bool(roles) + ", ".join(f"{role.value} of {_named(tenant)}" for tenant, role in sorted(roles))


def _named(tenant: str) -> str:
    return "all tenants" if tenant == ALL else tenant
