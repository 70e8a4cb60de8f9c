"""The API for people over HTTP: sessions, what a page may send, hostile values, pages of long lists, who did what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openapi_spec_validator import validate

from benchmarks.see.roles import CALLS, matrix, serving
from benchmarks.see.roles_ground import lay
from circuit_script.access import ALL, Act, Role, add_person, grant, make_token, roles, set_password
from circuit_script.config import GatewaySettings, Settings
from circuit_script.db.pool import Connection, open_connection
from circuit_script.gateway.api import caller
from circuit_script.settings_see import DashboardSettings
from tests.servers import Server

GOOD = "correct horse battery"
HOSTILE = ["\0", "a\0b", "\u202egnp", "%00", "' OR 1=1 --", "x" * 3000, "\U0010ffff", "\ufffe"]


def settings(folder: Path, **dashboard: Any) -> Settings:
    return Settings(folder=folder, gateway=GatewaySettings(port=0), dashboard=DashboardSettings(**dashboard))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    made = await open_connection(database)
    yield made
    await made.close()


@pytest.fixture
async def client(database: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings(tmp_path), database) as client:
        yield client


async def ann(connection: Connection, role: Role = Role.developer) -> dict[str, str]:
    """Headers by which a developer of acme calls."""
    await add_person(connection, "ann@example.com", "test", password=GOOD)
    await grant(connection, "ann@example.com", "acme", role, "test")
    token, _ = await make_token(connection, "ann@example.com", "laptop")
    return {"authorization": f"Bearer {token}"}


async def sign_in(client: httpx.AsyncClient, password: str = GOOD, **headers: str) -> httpx.Response:
    asked = {"name": "Ann@Example.com", "password": password}
    return await client.post("/session", json=asked, headers=headers)


async def test_a_browser_signs_in_stays_and_leaves(connection: Connection, client: httpx.AsyncClient) -> None:
    await ann(connection)
    wrong = await sign_in(client, "not this one at all")
    assert (wrong.status_code, wrong.json()["reason"]) == (401, "sign-in")
    assert "set-cookie" not in wrong.headers
    assert (await client.get("/session")).status_code == 401
    for foreign in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}):
        assert (await sign_in(client, **foreign)).status_code == 403
    assert (
        await client.post("/session", content=b"name=ann", headers={"content-type": "text/plain"})
    ).status_code == 415
    found = await sign_in(client, origin=str(client.base_url).removesuffix("/api/v1/"))
    assert found.status_code == 201
    cookie = SimpleCookie(found.headers["set-cookie"])["circuit_session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", "")
    assert found.json()["roles"] == {"acme": "developer"}
    assert found.headers["cache-control"] == "no-store"
    looked = await client.get("/session")
    assert looked.json()["reason"] == "csrf"  # a page of the app would look like that
    assert found.json()["csrf"] not in looked.text
    with_csrf = {"x-csrf-token": found.json()["csrf"]}
    assert (await client.get("/session", headers=with_csrf)).json() == found.json()
    again = await sign_in(client)  # another secret, and the first one is over
    client.cookies.clear()
    first = {"cookie": f"circuit_session={cookie.value}", **with_csrf}
    assert (await client.get("/session", headers=first)).status_code == 401
    new = {"cookie": f"circuit_session={SimpleCookie(again.headers['set-cookie'])['circuit_session'].value}"}
    assert (await client.delete("/session", headers=new)).json()["reason"] == "csrf"
    new["x-csrf-token"] = again.json()["csrf"]
    gone = await client.delete("/session", headers=new)
    assert (gone.status_code, gone.content) == (204, b"")
    assert "Max-Age=0" in gone.headers["set-cookie"]
    assert (await client.get("/session", headers=new)).status_code == 401
    await connection.execute("UPDATE circuit.sign_in_attempts SET n = 5, until = now()")
    await sign_in(client, "not this one at all")
    await connection.execute("UPDATE circuit.sign_in_attempts SET n = 6, until = now()")
    locked = await sign_in(client, "not this one at all")
    assert int(locked.headers["retry-after"]) >= 1
    await connection.execute("UPDATE circuit.sign_in_attempts SET until = now() + interval '1 hour'")
    assert (await sign_in(client)).status_code == 401  # the right one waits, too


async def test_behind_https_the_cookie_is_for_this_host_and_other_origins_are_none(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    await ann(connection)
    async with serving(settings(tmp_path, url="https://circuit.example.com", session="1h"), database) as client:
        plain = str(client.base_url).removesuffix("/api/v1/")
        assert (await sign_in(client, origin=plain)).status_code == 403  # http: somebody is on the wire
        found = await sign_in(client, origin="https://circuit.example.com")
        name, _, rest = found.headers["set-cookie"].partition("=")
        assert name == "__Host-circuit_session"
        assert rest.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
        value = rest.partition(";")[0]
        csrf = {"x-csrf-token": found.json()["csrf"]}
        assert (await client.get("/session", headers={"cookie": f"circuit_session={value}", **csrf})).status_code == 401
        assert (await client.get("/session", headers={"cookie": f"{name}={value}", **csrf})).status_code == 200


async def test_hostile_values_are_answered_by_problems_and_the_document_is_valid(
    connection: Connection, client: httpx.AsyncClient
) -> None:
    ground = await lay(connection)
    mine = await ann(connection, Role.owner)
    has = ground.of["acme"]
    queries = {
        "/executions": ("handler", "record", "object", "status", "delivery", "since", "before", "limit", "tenant"),
        "/records": ("record",), "/logs": ("q", "before", "limit"), "/in-doubt": ("record", "connector", "before"),
        "/dead-letters": ("trigger", "record", "reason", "kind", "since", "status", "before"), "/limits": ("days",),
    }  # fmt: skip
    for path, names in queries.items():
        for name in names:
            for value in (*HOSTILE, "-1", "nan", "1e400", "99999999999999999999"):
                answer = await client.get(path, params={name: value}, headers=mine)
                assert answer.status_code in (200, 400, 404, 422), (path, name, value[:20], answer.text[:300])
                assert "Traceback" not in answer.text
    for value in HOSTILE:
        for path in ("/records/Contact/", "/records/", "/executions/", "/traces/", "/dead-letters/", "/in-doubt/"):
            answer = await client.get(path + quote(value, safe=""), headers=mine)
            assert answer.status_code in (404, 422), (path, value[:20], answer.text[:300])
    deep = b'{"fields":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001
    bodies: list[bytes] = [
        b"", b"[]", b"null", b"{", b'{"ids":[]}', b'{"ids":[0]}', b'{"ids":["1"]}', b'{"ids":[1],"id":2}', b"\xff\xfe",
        b'{"key":"a\\u0000b"}', b'{"key":"\\ud800"}', b'{"fields":{"a":"\\u0000"}}', b'{"fields":{"a\\u0000":1}}', deep,
        b'{"ids":[1],"reason":"a\\u0000"}', b'{"key":"k","until":"never"}', b'{"decision":"maybe","reason":"x"}',
    ]  # fmt: skip
    for call in CALLS:
        for body in bodies if call.body else ():
            sent = {**mine, "content-type": "application/json"}
            answer = await client.post(call.path.format(**has), content=body, headers=sent)
            assert answer.status_code == 422, (call.path, body[:40], answer.text[:200])
    huge = b'{"fields":{"a":"' + b"x" * 2_000_000 + b'"}}'
    answer = await client.post(
        f"/dead-letters/{has['letter']}/edit", content=huge, headers={**mine, "content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert await ground.is_untouched()
    document = (await client.get(str(client.base_url).replace("/api/v1/", "/openapi.json"))).json()
    validate(document)
    assert {"session", "person", "key"} <= document["components"]["securitySchemes"].keys()
    assert "reason" in str(document["paths"]["/api/v1/dead-letters/discard"]["post"]["requestBody"])


async def test_lists_come_in_pages_and_what_is_done_says_who_did_it(
    connection: Connection, client: httpx.AsyncClient
) -> None:
    ground = await lay(connection)
    mine = await ann(connection)
    has = ground.of["acme"]
    letters = "INSERT INTO circuit.dead_letters (kind, tenant, attempts, reason, handler) SELECT 'event', %s, 1, 'r', 1"
    await connection.execute(f"{letters} FROM generate_series(1, 6)".encode(), ["acme"])
    await connection.execute(f"{letters} FROM generate_series(1, 6)".encode(), ["globex"])
    copies = """INSERT INTO circuit.executions
        SELECT gen_random_uuid(), tenant, release, handler, object, event, records, status, reason, detail, started_at,
               ended_at, usage FROM circuit.executions, generate_series(1, 6)"""
    await connection.execute(copies.encode())
    for path, n in (("/dead-letters", 7), ("/executions", 7)):
        seen: list[Any] = []
        asked: dict[str, str] = {"limit": "3"}
        while True:
            page = (await client.get(path, params=asked, headers=mine)).json()
            assert len(page["items"]) <= 3
            seen += [each["id"] for each in page["items"]]
            if page["next"] is None:
                break
            asked["before"] = str(page["next"])
        assert len(seen) == len(set(seen)) == n
        assert seen == sorted(seen, reverse=True)
    (line,) = (await client.get("/logs", params={"q": "level:error trouble"}, headers=mine)).json()["items"][:1]
    assert "acme" in line["message"]
    assert (await client.get("/logs", params={"q": "tenant:globex"}, headers=mine)).status_code == 404
    payload = (await client.get(f"/executions/{has['execution']}/payload", headers=mine)).json()["payload"]
    assert payload["note"] == "payload of acme"
    ids = {"ids": [has["letter"]], "reason": "it was a test"}
    (fate,) = (await client.post("/dead-letters/discard", json=ids, headers=mine)).json()["items"]
    assert fate["done"] == "discarded"
    settle = {"decision": "done", "reason": "seen there", "vendor_id": "v1"}
    assert (await client.post(f"/in-doubt/{has['effect']}/settle", json=settle, headers=mine)).status_code == 200
    assert (await client.post(f"/in-doubt/{has['effect']}/settle", json=settle, headers=mine)).status_code == 404
    assert (await client.post("/alerts/acknowledge", json={"key": has["alert"]}, headers=mine)).status_code == 200
    begun = await client.post(f"/executions/{has['execution']}/replay", headers=mine)
    assert (begun.status_code, begun.json()["events"]) == (202, 1), begun.text
    who = """SELECT (SELECT by FROM circuit.dead_letters WHERE id = %s), (SELECT settled_by FROM circuit.effects
        WHERE tenant = 'acme'), (SELECT acknowledged_by FROM circuit.alerts WHERE tenant = 'acme'),
        (SELECT by_whom FROM circuit.replays)"""
    row = await (await connection.execute(who.encode(), [has["letter"]])).fetchone()
    assert row == ("ann@example.com",) * 4


async def test_roles_and_passwords_that_change_count_from_the_next_request_on(
    connection: Connection, client: httpx.AsyncClient
) -> None:
    mine = await ann(connection)
    assert (await client.get("/status", headers=mine)).status_code == 200
    assert (await client.get("/records", params={"record": "c1"}, headers=mine)).status_code == 200
    await grant(connection, "ann@example.com", "globex", Role.viewer, "test")
    assert (await client.get("/status", headers=mine)).json()["reason"] == "tenant"  # which one?
    assert (await client.get("/status", params={"tenant": "globex"}, headers=mine)).status_code == 200
    await grant(connection, "ann@example.com", ALL, Role.viewer, "test")
    assert (await client.get("/status", params={"tenant": "whoever"}, headers=mine)).status_code == 200
    assert (await client.get("/records", params={"record": "c1"}, headers=mine)).json()["reason"] == "tenant"
    csrf = {"x-csrf-token": (await sign_in(client)).json()["csrf"]}
    assert (await client.get("/session", headers=csrf)).status_code == 200
    await set_password(connection, "ann@example.com", "another one entirely")
    assert (await client.get("/session", headers=csrf)).status_code == 401


async def test_a_slow_or_absent_database_is_said_and_holds_nobody_up(
    database: str, connection: Connection, client: httpx.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await ann(connection)
    async with connection.transaction():
        await connection.execute("LOCK circuit.executions")
        with monkeypatch.context() as patched:
            patched.setattr(caller, "PATIENCE", 0.2)
            answers = await asyncio.gather(*(client.get("/status", headers=mine) for _ in range(3)))
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["reason"] for each in answers} <= {"too-much", "database-unavailable"}
        many = [asyncio.create_task(client.get("/status", headers=mine)) for _ in range(caller.MAX_AT_ONCE * 2)]
        done, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        assert {each.result().json()["reason"] for each in done} == {"overloaded"}
    assert {(await each).status_code for each in many} <= {200, 503}
    await connection.execute("ALTER TABLE circuit.person_tokens RENAME TO away")
    answer = await client.get("/status", headers=mine)
    assert (answer.status_code, answer.json()["reason"]) == (503, "database-unavailable")
    await connection.execute("ALTER TABLE circuit.away RENAME TO person_tokens")
    assert (await client.get("/status", headers=mine)).status_code == 200


async def test_who_sends_slowly_or_guesses_holds_up_nobody_who_is_in(
    connection: Connection, client: httpx.AsyncClient
) -> None:
    mine = await ann(connection)
    let_go = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"name":'
        await let_go.wait()
        yield b'"x","password":"y"}'

    sent = {"content-type": "application/json"}
    slow = [asyncio.create_task(client.post("/session", content=slowly(), headers=sent)) for _ in range(40)]
    guesses = [client.post("/session", json={"name": f"n{n}", "password": GOOD}) for n in range(40)]
    guessing = asyncio.gather(*guesses)
    looks = [await client.get("/status", headers=mine) for _ in range(5)]
    assert {each.status_code for each in looks} == {200}
    let_go.set()
    answers = [*await asyncio.gather(*slow), *await guessing]
    assert {each.status_code for each in answers} <= {401, 503}
    row = await (
        await connection.execute("SELECT max(n) FROM circuit.sign_in_attempts WHERE kind = 'address'")
    ).fetchone()
    assert row is not None
    assert row[0] <= 24


async def test_some_of_the_role_matrix_holds(database: str, tmp_path: Path) -> None:
    found = await matrix(database, tmp_path, one_of=17)
    assert found.cases > 130
    assert found.failures == []


@pytest.mark.story
async def test_the_role_matrix_holds(database: str, tmp_path: Path) -> None:
    found = await matrix(database, tmp_path)
    assert found.cases > 1300
    assert found.failures == []


@pytest.mark.story
@pytest.mark.slow
async def test_the_role_matrix_sees_a_role_that_may_too_much(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(roles._LEAST, Act.retry, Role.viewer)
    found = await matrix(database, tmp_path)
    assert found.failures
    assert [each for each in found.failures if "/dead-letters/retry" not in each] == []
