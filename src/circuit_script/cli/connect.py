"""``circuit-script connect``: give a tenant's account at a vendor to the app, and see that it works."""

from __future__ import annotations

import asyncio
import secrets as random
import sys
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import typer

from circuit_script.cli.app_database import looking
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json, visible
from circuit_script.config import ConnectorSettings, Settings, load_settings
from circuit_script.connectors.gohighlevel import connect, oauth
from circuit_script.connectors.gohighlevel.faults import BASE_URL
from circuit_script.connectors.gohighlevel.objects import JULY
from circuit_script.connectors.query import Query
from circuit_script.connectors.tokens import AGENCY, Connections, GrantGone, Kind, Tokens
from circuit_script.db.pool import unavailable
from circuit_script.errors import ConfigError, RequestRefused, SecretsUnavailable, VendorUnavailable
from circuit_script.secrets import Keys, open_secrets
from circuit_script.secrets.table import One
from circuit_script.tenants import DEFAULT

NAME = "connect"
EXAMPLES = (
    "Examples:  circuit-script connect gohighlevel --tenant acme  ·  "
    "circuit-script connect gohighlevel --tenant acme --token-stdin < token.txt  ·  "
    "circuit-script connect gohighlevel --agency  ·  circuit-script connect gohighlevel --tenant acme --check"
)
VENDORS = ("gohighlevel",)
PORT = 8770
LONGEST_TOKEN = 10_000  # characters
LONGEST_REQUEST = 16 * 1024  # bytes of a redirect


@dataclass(frozen=True, slots=True)
class Checked:
    """What one read of the account said. ``missing`` are scopes that the connector uses and the token does not have."""

    vendor: str
    tenant: str
    account: str
    name: str
    kind: Kind | str
    ok: bool
    missing: tuple[str, ...]
    problem: str | None
    next: str


def run(
    vendor: Annotated[str, typer.Argument(help="The vendor: gohighlevel.")],
    tenant: Annotated[str, typer.Option(help="Whose account it is.")] = DEFAULT,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Take a private integration token from standard input.")
    ] = False,
    account: Annotated[str, typer.Option(help="The location, where circuit.toml does not say it.")] = "",
    agency: Annotated[
        bool, typer.Option("--agency", help="An agency's account: its locations get tokens of their own from it.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; only see whether it works.")] = False,
    port: Annotated[int, typer.Option(help="The loopback port to which the vendor sends you back.")] = PORT,
    wait: Annotated[float, typer.Option(help="Seconds to wait for you to agree.")] = 600.0,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Connect a tenant to its account at a vendor: by OAuth unless a token is given; then read once, to see that it
    works."""
    if vendor not in VENDORS:
        raise typer.BadParameter(f"there is {', '.join(VENDORS)}", param_hint="VENDOR")
    settings = load_settings(app_folder(folder))
    whose = AGENCY if agency else _known(settings, tenant)
    token = _token() if token_stdin and not check else None
    try:
        found = asyncio.run(_run(settings, whose, token, account, agency, check, port, wait))
    except psycopg.Error as error:
        raise unavailable(error) from error
    _show(found, as_json)
    if not found.ok:
        raise typer.Exit(1)


async def _run(
    settings: Settings, tenant: str, token: str | None, account: str, agency: bool, check: bool, port: int, wait: float
) -> Checked:
    said = settings.connectors.get("gohighlevel", ConnectorSettings())
    url = said.url or BASE_URL
    named = settings.accounts.get(tenant, {}).get("gohighlevel", ())
    location = account or (named[0] if named else said.account)
    async with looking(settings, NAME) as connection, httpx.AsyncClient(timeout=15) as client:
        async with aclosing(open_secrets(settings, One(connection))) as secrets:
            grants = oauth.GoHighLevelGrants(client, secrets, base_url=url, client_id=said.client_id)
            held = Connections(One(connection), Keys(settings), grants, secrets=secrets, account_of=lambda _: location)
            if token is not None:
                if not location:
                    raise ConfigError(
                        "A private token does not say which location it is for.",
                        cure=f'Write gohighlevel = ["…"] under [tenants.{tenant}] in circuit.toml, or give --account.',
                    )
                await held.put(tenant, Tokens(token, account=location, base_url=url), "private")
            elif not check:
                choose = said.token_url or (said.url or oauth.CHOOSE)
                tokens = await _agree(grants, tenant, agency=agency, port=port, wait=wait, choose=choose)
                if not agency and named and tokens.account not in named:
                    raise ConfigError(
                        f"You chose the location {tokens.account}, and circuit.toml says that {tenant} has "
                        f"{', '.join(named)}. Nothing was stored.",
                        cure="Choose that location, or change [tenants] in circuit.toml.",
                    )
                await held.put(tenant, tokens, "agency" if agency else "oauth")
            return await _check(held, client, tenant)


async def _agree(
    grants: oauth.GoHighLevelGrants, tenant: str, *, agency: bool, port: int, wait: float, choose: str
) -> Tokens:
    """Send the person to the vendor and wait until they come back. Raises RequestRefused, SecretMissing,
    SecretsUnavailable."""
    client_id = await grants.client_id(tenant)
    state = random.token_urlsafe(24)
    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of the browser; only the redirect with our state counts."""
        try:
            line = (await asyncio.wait_for(reader.readline(), 10))[:LONGEST_REQUEST].decode("latin-1")
            target = line.split(" ")[1] if line.count(" ") >= 2 else ""
            code, words = _code_of(target, state)
            if code and not came.done():
                came.set_result(code)
            body = words.encode()
            head = f"HTTP/1.1 {200 if code else 400} X\r\ncontent-type: text/plain; charset=utf-8\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=LONGEST_REQUEST)
    except OSError as error:
        raise ConfigError(f"Port {port} cannot be used: {error.strerror}.", cure="Give another: --port.") from None
    async with server:
        redirect = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"
        where = oauth.address(client_id, redirect, state, choose=choose)
        print(
            f"Open this address, choose the {'agency' if agency else 'location'}, and agree:\n\n  {where}\n",
            file=sys.stderr,
        )
        print(f"The app at the vendor must allow the redirect {redirect}. Waiting …", file=sys.stderr, flush=True)
        try:
            async with asyncio.timeout(wait):
                code = await came
        except TimeoutError:
            raise RequestRefused(
                f"nobody came back within {wait:g} seconds.", cure="Run it again; --wait SECONDS waits longer."
            ) from None
    try:
        return await grants.exchange(tenant, code, redirect, agency=agency)
    except GrantGone as gone:
        raise RequestRefused(f"the vendor gave no token: {gone}.", cure="Run it again: a code serves once.") from None


def _code_of(target: str, state: str) -> tuple[str | None, str]:
    """The code of a redirect, and what the browser shows."""
    parts = urlsplit(target)
    given = parse_qs(parts.query)
    if parts.path != "/callback":
        return None, "There is nothing here."
    if not random.compare_digest(given.get("state", [""])[0].encode(), state.encode()):
        return None, "This does not belong to the command that waits: its state is another one. Start it again."
    if not (code := given.get("code", [""])[0]):
        return None, "The vendor sent no code: nobody has agreed."
    return code, "Connected. You may close this window and go back to the terminal."


async def _check(held: Connections, client: httpx.AsyncClient, tenant: str) -> Checked:
    """One read of the account."""
    crm = connect(client, held)
    of = f" --tenant {tenant}" if tenant else " --agency"
    try:
        access = await held.of(tenant)
        scopes, kind = held.scopes(tenant)
    except (VendorUnavailable, SecretsUnavailable) as error:
        return Checked(
            "gohighlevel", tenant, "", "", "", False, (), str(error), f"circuit-script connect gohighlevel{of}"
        )
    missing = tuple(each for each in oauth.SCOPES if scopes and each not in scopes)
    if kind == "agency":
        return Checked("gohighlevel", tenant, access.account, "", kind, True, missing, None,
                       "Name each tenant's location in circuit.toml; its token is asked for by itself.")  # fmt: skip
    try:
        path = f"/locations/{access.account}"
        answer = await crm.ask(tenant, JULY, path)
        name = str((answer.get("location") or {}).get("name") or "")[:200]
        await crm.page(tenant, Query("Contact", limit=1), None, 1)
    except VendorUnavailable as error:
        return Checked("gohighlevel", tenant, access.account, "", kind, False, missing, str(error),
                       "Give the token the scopes that it lacks, or connect again.")  # fmt: skip
    after = 'Let records live there: [crm] home = "gohighlevel" in circuit.toml.'
    return Checked("gohighlevel", tenant, access.account, name, kind, not missing, missing, None, after)


def _known(settings: Settings, tenant: str) -> str:
    if tenant not in settings.tenant_names:
        raise ConfigError(
            f"There is no tenant {tenant!r}.",
            cure=f"There are {', '.join(settings.tenant_names)}.",
            page="unknown-tenant",
        )
    return tenant


def _token() -> str:
    """What stands on standard input."""
    token = sys.stdin.read(LONGEST_TOKEN + 1).strip()
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or any(each.isspace() for each in token):
        raise typer.BadParameter("standard input holds no token", param_hint="--token-stdin")
    return token


def _show(found: Checked, as_json: bool) -> None:
    told: dict[str, Any] = {name: getattr(found, name) for name in Checked.__slots__}
    if as_json:
        print_json(told | {"missing": list(found.missing)})
        return
    whose = found.tenant or "the agency"
    out = console()
    if found.problem:
        out.print(visible(f"{whose} is not connected to {found.vendor}: {found.problem}"))
    else:
        out.print(visible(f"{whose} is connected to {found.vendor}: {found.name or found.account} ({found.account})"))
    if found.missing:
        out.print(
            visible(f"The token lacks scopes: {', '.join(found.missing)}. Add them to the app, and connect again.")
        )
    out.print(visible(found.next))
