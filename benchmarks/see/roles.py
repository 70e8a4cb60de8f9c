"""Who may do what over the API: every route, with every role, for one's own tenant, another's and all of them, with
every kind of credential. What is expected is said here once more, in words of its own.

    python -m benchmarks.see.roles
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.postgres import one_postgres
from benchmarks.see.roles_ground import TENANTS, Ground, lay
from circuit_script.access import (
    ALL,
    COOKIE,
    Role,
    add_person,
    find_person,
    grant,
    make_token,
    one_time_link,
    redeem,
    remove_person,
    sign_out,
)
from circuit_script.access.sessions import SignedIn
from circuit_script.config import GatewaySettings, Settings
from circuit_script.db.migrate import migrate
from circuit_script.db.pool import Connection, open_connection
from circuit_script.gateway.api import api_routers
from circuit_script.gateway.serve import run_gateway

OWN, OTHER = TENANTS
SPARE = "spare"  # whose sessions come and go
ROLES = ("viewer", "operator", "developer", "owner")
DONE = (200, 201, 202, 204, 409)  # 409: it may be done, and cannot be as things stand


@dataclass(frozen=True, slots=True)
class Call:
    """A route as it is called. ``least`` is the role from which on it may be; ``item`` says that it is about something
    of one tenant, and ``one_tenant`` that it cannot be asked for all of them at once."""

    method: str
    path: str
    least: str = "viewer"
    item: bool = False
    one_tenant: bool = False
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    @property
    def safe(self) -> bool:
        return self.method == "GET"


# ``{…}`` in a path, and a value that begins with ``$``, are filled with what a tenant has.
CALLS = (
    Call("GET", "/status"),
    Call("GET", "/executions"),
    Call("GET", "/executions/{execution}", item=True),
    Call("GET", "/executions/{execution}/payload", "operator", item=True),
    Call("POST", "/executions/{execution}/replay", "operator", item=True),
    Call("GET", "/records", one_tenant=True, query={"record": "c1"}),
    Call("GET", "/records/Contact/{record}", item=True, one_tenant=True),
    Call("GET", "/logs"),
    Call("GET", "/traces/{execution}", item=True),
    Call("GET", "/dead-letters"),
    Call("GET", "/dead-letters/{letter}", item=True),
    Call("POST", "/dead-letters/retry", "operator", item=True, body={"ids": ["$letter"]}),
    Call("POST", "/dead-letters/discard", "operator", item=True, body={"ids": ["$letter"], "reason": "a test"}),
    Call("POST", "/dead-letters/{letter}/edit", "developer", item=True, body={"fields": {"email": "new@example.com"}}),
    Call("GET", "/in-doubt"),
    Call("GET", "/in-doubt/{effect}", item=True),
    Call("POST", "/in-doubt/{effect}/settle", "operator", item=True, body={"decision": "discard", "reason": "a test"}),
    Call("GET", "/alerts"),
    Call("POST", "/alerts/acknowledge", "operator", item=True, body={"key": "$alert"}),
    Call(
        "POST", "/alerts/silence", "operator", item=True, body={"key": "$alert", "until": "2026-01-01T00:00:00Z"}
    ),
    Call("GET", "/limits"),
    Call("POST", "/judge", body={"text": "See you at five."}),
)  # fmt: skip
# Releases are everybody's: a role for one tenant opens none of these, whatever tenant is asked for.
RELEASES = (
    Call("GET", "/releases", "developer"),
    Call("GET", "/releases/live", "developer"),
    Call("GET", "/releases/moves/{number}", "developer"),
    Call("POST", "/releases", "developer", body={}),
    Call("GET", "/releases/{number}", "developer"),
    Call("GET", "/releases/{number}/hosts", "developer"),
    Call("POST", "/releases/{number}/warm", "developer"),
    Call("POST", "/releases/{number}/live", "developer", body={"expected": 0}),
)
NUMBER = 999_999_999
# Signing in and out is for everybody: it has tests of its own.
FOR_EVERYBODY = {("POST", "/session"), ("GET", "/session"), ("DELETE", "/session")}


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with one role, for a tenant or for all."""

    role: str
    where: str
    cookie: str
    csrf: str
    token: str

    def headers(self, credential: str) -> dict[str, str]:
        match credential:
            case "cookie":
                return {"cookie": f"{COOKIE}={self.cookie}", "x-csrf-token": self.csrf}
            case "cookie without CSRF":
                return {"cookie": f"{COOKIE}={self.cookie}"}
            case _:
                return {"authorization": f"Bearer {self.token}"}


@dataclass(slots=True)
class Matrix:
    """What was tried, and what went otherwise than it should."""

    one_of: int = 1
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    _met: int = 0

    def leaves_out(self) -> bool:
        """Whether the next one is left out."""
        self._met += 1
        return bool(self._met % self.one_of)

    def note(self, case: str, wrong: str) -> None:
        self.cases += 1
        if wrong:
            self.failures.append(f"{case}: {wrong}")


async def measure() -> dict[str, Any]:
    """Figures: how many cases, and how many of them went otherwise than they should."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as place:
        folder = Path(place)
        folder.chmod(0o711)
        async with one_postgres(folder) as url:
            await migrate(url)
            found = await matrix(url, folder)
    for each in found.failures[:50]:
        print(each)
    return {"roles_cases": found.cases, "roles_failed": len(found.failures)}


async def matrix(url: str, folder: Path, one_of: int = 1) -> Matrix:
    """Try all of it, or one of so many cases, on a database that has been migrated and is empty otherwise."""
    found = Matrix(one_of)
    connection = await open_connection(url)
    try:
        ground = await lay(connection)
        for has in ground.of.values():
            has["number"] = NUMBER
        async with serving(Settings(folder=folder, gateway=GatewaySettings(port=0)), url) as client:
            tried = {(call.method, _shape(call.path)) for call in (*CALLS, *RELEASES)}
            for route in sorted(_routes() ^ (tried | FOR_EVERYBODY)):
                found.note(" ".join(route), "it is tried nowhere, or there is none")
            await add_person(connection, SPARE, "bench")
            await grant(connection, SPARE, ALL, Role.owner, "bench")
            holders = [await _holder(connection, role, where) for where in (OWN, ALL) for role in ROLES]
            for call in CALLS:
                for holder in holders:
                    await _by_role(found, client, ground, call, holder)
                await _by_credential(found, client, ground, connection, call, holders[-1])
            for call in RELEASES:
                for holder in holders:
                    await _of_releases(found, client, ground, call, holder)
                await _by_credential(found, client, ground, connection, call, holders[-1])
    finally:
        await connection.close()
    return found


async def _by_role(found: Matrix, client: httpx.AsyncClient, ground: Ground, call: Call, holder: Holder) -> None:
    for asked in (None, OWN, OTHER, ALL):
        for tenant in TENANTS if call.item else (OWN,):
            for credential in ("cookie", "token"):
                if found.leaves_out():
                    continue
                who = f"{holder.role} of {holder.where} for {asked}, {credential}"
                case = f"{call.method} {call.path} of {tenant} as {who}"
                expected, scope = _expected(call, holder, asked, tenant)
                answer = await _ask(client, ground, call, tenant, asked, holder.headers(credential))
                changed = await _changed(ground, call, answer)
                found.note(case, _wrong(answer, expected, scope, holder.role) or changed)


async def _of_releases(found: Matrix, client: httpx.AsyncClient, ground: Ground, call: Call, holder: Holder) -> None:
    may = holder.where == ALL and ROLES.index(holder.role) >= ROLES.index(call.least)
    for asked in (None, OWN, ALL):
        for credential in ("cookie", "token"):
            if found.leaves_out():
                continue
            case = f"{call.method} {call.path} as {holder.role} of {holder.where} for {asked}, {credential}"
            answer = await _ask(client, ground, call, OWN, asked, holder.headers(credential))
            right = answer.status_code not in (401, 403) if may else answer.status_code == 403
            found.note(case, "" if right else f"{answer.status_code}: {answer.text[:200]}")


def _expected(call: Call, holder: Holder, asked: str | None, tenant: str) -> tuple[int, tuple[str, ...]]:
    """The status (200 stands for all that is done), and the tenants of which something may be seen."""
    everywhere = holder.where == ALL
    if asked is None:
        scope = TENANTS if everywhere else (OWN,)
    elif asked == ALL:
        scope = TENANTS if everywhere else ()
    else:
        scope = (asked,) if everywhere or asked == OWN else ()
    if not scope:
        return 404, ()
    if ROLES.index(holder.role) < ROLES.index(call.least):
        return 403, ()
    if call.one_tenant and len(scope) > 1:
        return 400, ()
    if call.item and tenant not in scope:
        return 404, ()
    return 200, scope


def _wrong(answer: httpx.Response, expected: int, scope: tuple[str, ...], role: str) -> str:
    status = 200 if answer.status_code in DONE else answer.status_code
    if status != expected:
        return f"{answer.status_code} instead of {expected}: {answer.text[:200]}"
    if expected != 200 and answer.headers["content-type"] != "application/problem+json":
        return "no problem+json"
    for tenant in TENANTS:
        if tenant not in scope and any(f"{word} of {tenant}" in answer.text for word in ("trouble", "payload")):
            return f"it tells something of {tenant}"
    if role == "viewer" and "payload of" in answer.text:
        return "a viewer sees a payload"
    return ""


async def _by_credential(
    found: Matrix, client: httpx.AsyncClient, ground: Ground, connection: Connection, call: Call, owner: Holder
) -> None:
    """What is no credential, or none any more, opens nothing, though its person may do everything."""
    async for credential, headers, expected in _credentials(connection, owner, call):
        if found.leaves_out():
            continue
        answer = await _ask(client, ground, call, OWN, OWN, headers)
        case = f"{call.method} {call.path} with {credential}"
        changed = await _changed(ground, call, answer)
        found.note(case, _wrong(answer, expected, (OWN,), "owner") or changed)


async def _credentials(
    connection: Connection, owner: Holder, call: Call
) -> AsyncIterator[tuple[str, dict[str, str], int]]:
    cookie, csrf = {"cookie": f"{COOKIE}={owner.cookie}"}, {"x-csrf-token": owner.csrf}
    yield "nothing", {}, 401
    yield "a cookie that is none", {"cookie": f"{COOKIE}={'A' * 43}", **csrf}, 401
    yield "two cookies", {"cookie": f"{COOKIE}={owner.cookie}; {COOKIE}={'A' * 43}", **csrf}, 401
    yield "a token in the cookie", {"cookie": f"{COOKIE}={owner.token}", **csrf}, 401
    yield "a cookie as token", {"authorization": f"Bearer csp_{owner.cookie}"}, 401
    yield "another scheme", {"authorization": f"Basic {owner.token}"}, 401
    yield "a wrong token, and a cookie", {"authorization": f"Bearer csp_{'A' * 43}", **cookie, **csrf}, 401
    for what, statement in (
        ("a session that is over", "UPDATE circuit.sessions SET ends_at = now() WHERE id = %s"),
        ("a session that was not used", "UPDATE circuit.sessions SET seen_at = now() - interval '1 day' WHERE id = %s"),
    ):
        made = await _session(connection, SPARE)
        await connection.execute(statement.encode(), [made.session.id])
        yield what, {"cookie": f"{COOKIE}={made.cookie}", "x-csrf-token": made.session.csrf}, 401
    made = await _session(connection, SPARE)
    await sign_out(connection, made.cookie)
    yield "a session that was ended", {"cookie": f"{COOKIE}={made.cookie}", "x-csrf-token": made.session.csrf}, 401
    token, _ = await make_token(connection, "owner.all", f"over {call.method} {call.path}", lasts=0)
    yield "a token that is over", {"authorization": f"Bearer {token}"}, 401
    name = "gone"
    await add_person(connection, name, "bench")
    await grant(connection, name, ALL, Role.owner, "bench")
    token, _ = await make_token(connection, name, "a token")
    await remove_person(connection, name)
    yield "a token of somebody who is gone", {"authorization": f"Bearer {token}"}, 401
    nobody = await _token_of_nobody(connection)
    nothing = 403 if call in RELEASES else 404
    yield "a token of somebody without a role", {"authorization": f"Bearer {nobody}"}, nothing
    less, _ = await make_token(connection, "owner.all", f"less {call.method} {call.path}", most=Role.viewer)
    yield "an owner's token for looking", {"authorization": f"Bearer {less}"}, 200 if call.least == "viewer" else 403
    other = (await _session(connection, SPARE)).session.csrf
    yield "no CSRF token", cookie, 403
    yield "another session's CSRF token", {**cookie, "x-csrf-token": other}, 403
    yield "another origin's page", {**cookie, **csrf, "origin": "https://evil.example"}, 403
    yield "a page without origin", {**cookie, **csrf, "origin": "null"}, 403
    yield "a form of another site", {**cookie, **csrf, "sec-fetch-site": "cross-site"}, 403


async def _ask(
    client: httpx.AsyncClient, ground: Ground, call: Call, tenant: str, asked: str | None, headers: dict[str, str]
) -> httpx.Response:
    has = ground.of[tenant]
    query = call.query | ({} if asked is None else {"tenant": asked})
    body = None if call.body is None else _filled(call.body, has)
    return await client.request(call.method, call.path.format(**has), params=query, json=body, headers=headers)


def _filled(value: Any, has: dict[str, Any]) -> Any:
    match value:
        case str() if value.startswith("$"):
            return has[value[1:]]
        case list():
            return [_filled(each, has) for each in value]
        case dict():
            return {key: _filled(each, has) for key, each in value.items()}
        case _:
            return value


async def _changed(ground: Ground, call: Call, answer: httpx.Response) -> str:
    """Whether something that was refused was done all the same. What was done is undone."""
    if call.safe:
        return ""
    if answer.status_code in DONE:
        await ground.restore()
        return ""
    if await ground.is_untouched():
        return ""
    await ground.restore()
    return "it was refused, and done"


async def _holder(connection: Connection, role: str, where: str) -> Holder:
    name = f"{role}.{'all' if where == ALL else 'one'}"
    await add_person(connection, name, "bench")
    await grant(connection, name, where, Role(role), "bench")
    made = await _session(connection, name)
    token, _ = await make_token(connection, name, "bench")
    return Holder(role, where, made.cookie, made.session.csrf, token)


async def _session(connection: Connection, name: str) -> SignedIn:
    made = await redeem(connection, (await one_time_link(connection, "", name)).rpartition("=")[2])
    assert isinstance(made, SignedIn)
    return made


async def _token_of_nobody(connection: Connection) -> str:
    name = "nobody"
    if name in {row[0] for row in await (await connection.execute("SELECT name FROM circuit.people")).fetchall()}:
        await remove_person(connection, name)
    await add_person(connection, name, "bench")
    assert not (await find_person(connection, name)).person.memberships
    return (await make_token(connection, name, "a token"))[0]


@asynccontextmanager
async def serving(settings: Settings, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway, and who speaks to its API."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(run_gateway(settings, url, stop=stop, on_ready=ready.set_result))
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    try:
        async with httpx.AsyncClient(base_url=f"{ready.result()}/api/v1", timeout=30) as client:
            yield client
    finally:
        stop.set()
        await running


def _routes() -> set[tuple[str, str]]:
    """What the gateway has: methods, and paths without the names of their parts."""
    return set(_found())


def _found() -> Iterator[tuple[str, str]]:
    for router in api_routers():
        for route in router.routes:
            path: str = getattr(route, "path", "")
            for method in getattr(route, "methods", ()):
                yield method, _shape(path.removeprefix("/api").removeprefix("/v1").replace("{object}", "Contact"))


def _shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
