"""The guardian on a real database, with vendors that really answer, or do not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from circuit_script.cli.doctor.check import State
from circuit_script.cli.doctor.see import findings as doctors
from circuit_script.config import Address, Settings
from circuit_script.db.health import clock_apart, read_health
from circuit_script.settings_see import GuardianSettings
from circuit_script.supervised import Roles, Standing, forget, tell, told
from circuit_script.wiring import guardian as guardian_module
from circuit_script.wiring import outlook
from circuit_script.wiring.guardian import Guardian, Unseen, fresh_findings, read_findings
from circuit_script.wiring.outlook import Place, look_outside
from tests.road import SCORE, Road, open_road

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "AGAIN", 0.0)


@contextlib.asynccontextmanager
async def listening(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)


def answering(status: int, requests: list[bytes] | None = None) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if requests is not None:
                requests.append(head)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    return answer


def nobody() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, **guardian: Any) -> Settings:
    return Settings(folder=folder, database_url="postgresql://unused", guardian=GuardianSettings(**guardian))


async def later(road: Road, minutes: int) -> None:
    """So long ago was everything done."""
    await road.run("UPDATE circuit.upkeep SET succeeded_at = succeeded_at - make_interval(mins => %s)", minutes)


async def test_what_is_wrong_is_noted_with_when_it_began_until_it_is_mended(road: Road, tmp_path: Path) -> None:
    asked: list[bytes] = []
    sick = [503]

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(sick[0], asked)(reader, writer)

    touched: list[bytes] = []
    dropped = {"logs": 0}
    await road.run(
        "INSERT INTO circuit.workers (id, host, pid, expires_at) "
        "VALUES (gen_random_uuid(), 'far boot', 7, now() - interval '10 minutes')"
    )
    (tmp_path / ".circuit").mkdir()
    tell(tmp_path / ".circuit", Roles(supervisor=1, roles={"gateway": Standing(down="it ended with status 3")}))
    async with listening(vendor) as port, listening(answering(200, touched)) as address:
        apis = {"crm": f"http://127.0.0.1:{port}/", "gone": f"http://127.0.0.1:{nobody()}"}
        wanted = settings(tmp_path, apis=apis, expiries={"token": "2020-01-01"}, disk_free=0.999999)
        wanted = wanted.model_copy(update={"addresses": {"erp": Address(url=f"http://127.0.0.1:{address}/hook")}})
        guardian = Guardian(wanted, road.pool, lambda: dropped)
        await guardian.tick()
        first = {each.name.partition("@")[0]: each for each in guardian.findings()}
        disk = next(name for name in first if name.startswith("disk:"))
        assert set(first) == {"api:crm", "api:gone", "credential:token", "role:gateway", "worker:far", disk}
        assert next(iter(guardian.findings())).severity == "critical", "the worst first"
        assert "answers 503" in first["api:crm"].what
        assert "Connect call failed" in first["api:gone"].what or "refused" in first["api:gone"].what.lower()
        assert (len(asked), touched) == (2, []), "a vendor is asked twice; an address is not asked at all"

        await guardian.tick()
        assert len(asked) == 2, "it is not due again"
        sick[0] = 404
        dropped["logs"] = 5
        forget(tmp_path / ".circuit")
        await later(road, 6)
        await guardian.tick()

    second = {each.name.partition("@")[0]: each for each in guardian.findings()}
    assert set(second) == {"api:gone", "credential:token", "worker:far", "dropped:logs", disk}
    assert second["credential:token"].since == first["credential:token"].since
    async with road.pool.connection() as connection:
        assert await read_findings(connection, 300.0) == list(guardian.findings()), "everybody knows the same"
        said = {each.name: each async for each in doctors(connection, wanted, working=True)}
        assert {each.state for each in said.values()} == {State.bad, State.warning}
        assert (said["credential:token"].state, said["api:gone"].state) == (State.bad, State.warning)
        assert "since 20" in said["worker:far"].said
        await later(road, 20)
        assert await read_findings(connection, 300.0) == [], "what nobody has looked at for so long says nothing"
        await road.run(
            """UPDATE circuit.upkeep SET succeeded_at = now(), detail = '{"findings": [{"name": 1}, 7, null]}'"""
        )
        assert await read_findings(connection, 300.0) == [], "another version's words"


async def test_the_end_of_a_certificate_is_seen_and_a_strangers_is_refused(tmp_path: Path) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=5)
    ours, trusting = certificate(tmp_path, ends)
    async with listening(answering(200), ours) as port:
        place = Place("crm", f"https://localhost:{port}/", ask=True)
        (known,) = await look_outside([place], trusting)
        (strange,) = await look_outside([place])
        (bare,) = await look_outside([Place("crm", place.url)], trusting)
    assert (known.status, known.fault, known.certificate_ends) == (200, "", ends)
    assert strange.fault.startswith("its certificate is refused")
    assert (bare.status, bare.fault, bare.certificate_ends) == (None, "", ends)


def certificate(folder: Path, ends: datetime) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of localhost, signed by itself: for who shows it, and for who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1)).not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=made.public_bytes(Encoding.PEM).decode())


async def test_hostile_vendors_cost_bounded_time_and_never_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "PATIENCE", 0.3)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not reader.at_eof():
                writer.write(b"X-More: \xff\x00" + b"a" * 1000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xffSSH-2.0\r\n\r\n")
        writer.close()

    async with listening(silent) as one, listening(endless) as two, listening(nonsense) as three:
        urls = [f"http://127.0.0.1:{port}/" for port in (one, two, three)]
        urls += [f"https://127.0.0.1:{one}/", "https://", "http://[", "http://nobody.invalid/", "http://x:99999/"]
        urls += ["http://\ud800/", "http://a\x00b/", "http://" + "a" * 300 + ".test/"]
        seen = await look_outside([Place(f"{n}", url, ask=True) for n, url in enumerate(urls)])
    assert [bool(each.fault) for each in seen] == [True] * len(urls), seen
    assert all(len(each.fault) < 400 for each in seen)


@pytest.mark.every_server
async def test_every_server_tells_how_it_is_doing(road: Road) -> None:
    async with road.pool.connection() as connection:
        health, apart = await read_health(connection), await clock_apart(connection)
    assert health.bytes > 0
    assert 0 < health.connections < health.max_connections
    assert (health.autovacuum, health.ids_used > 0, health.slot) == (True, True, "")
    assert abs(apart) < 1


def test_what_a_dead_supervisor_told_counts_no_more(tmp_path: Path) -> None:
    assert told(tmp_path) is None
    wrong = [f'{{"supervisor": {pid}, "roles": {{}}}}'.encode() for pid in (0, -1, 4194305, 10**20)]
    for words in (b"", b"{", b"[]", *wrong):
        (tmp_path / "roles.json").write_bytes(words)
        assert told(tmp_path) is None, words
    tell(tmp_path, Roles(1, {"worker": Standing(5, "release 1", 3.0, restarts=(1.0, 9.0))}))
    found = told(tmp_path)
    assert found is not None
    assert found.roles["worker"].restarts_since(5.0) == 1
    tell(tmp_path / "not" / "there", found)
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_part_that_fails_or_waits_blinds_no_other_and_is_found_itself(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        raise psycopg.errors.InsufficientPrivilege("pg_monitor is needed")

    monkeypatch.setattr(guardian_module, "read_health", broken)
    monkeypatch.setattr(guardian_module._part, "__defaults__", (0.5,))
    guardian = Guardian(settings(tmp_path, expiries={"token": "2020-01-01"}), road.pool)
    async with road.pool.connection() as other, other.transaction():
        await other.execute("LOCK TABLE circuit.effects")
        await guardian.tick()
    found = {each.name: each for each in guardian.findings()}
    assert set(found) >= {"look:database", "look:effects", "credential:token"}
    assert "InsufficientPrivilege: pg_monitor is needed" in found["look:database"].what
    async with road.pool.connection() as connection:
        assert await fresh_findings(connection, 300.0) == list(guardian.findings())
        await later(road, 20)
        with pytest.raises(Unseen, match="has not looked since"):
            await fresh_findings(connection, 300.0)
        await road.run("DELETE FROM circuit.upkeep")
        assert await fresh_findings(connection, 300.0) == []


async def test_a_table_that_is_locked_holds_up_the_guardian_alone(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TICK", "LONGEST"):
        monkeypatch.setattr(guardian_module, name, 0.05)
    monkeypatch.setattr(guardian_module, "PER_PLACE", 0.0)
    guardian = Guardian(settings(tmp_path, disk_free=0.999999), road.pool)
    async with road.pool.connection() as other, other.transaction():
        await other.execute("LOCK TABLE circuit.upkeep")
        work = asyncio.create_task(guardian.run())
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        seen = set()
        async with asyncio.timeout(20):
            while len(seen) < 2:  # it waits, gives the connection back, and waits again
                seen.add((await road.rows(f"{waits} AND query LIKE '%%upkeep%%'"))[0])
        assert not work.done()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await Guardian(settings(tmp_path), road.pool).tick()
    assert await road.rows("SELECT count(*) FROM circuit.upkeep WHERE chore LIKE 'guardian%%'") == [2]
