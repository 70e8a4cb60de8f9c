"""Releases over the API: who may, what is received, and how `deploy --to` asks a platform that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
from rich.console import Console
from typer import BadParameter

from benchmarks.see.roles import serving
from circuit_script.access import ALL, Role, add_person, grant, make_token
from circuit_script.cli import places_http
from circuit_script.cli.deploy_steps import Steps
from circuit_script.cli.deploy_watch import NOBODY, warm, watch
from circuit_script.cli.places import Going, Place
from circuit_script.cli.places_http import ByAddress, by_address
from circuit_script.config import GatewaySettings, Settings
from circuit_script.db.pool import Connection, open_connection
from circuit_script.errors import CircuitError, ElsewhereAway, ElsewhereRefused, ReleaseRefused, ReleaseUnknown
from circuit_script.execution.outcome import EndpointSpec, HandlerSpec, JobSpec, Way
from circuit_script.execution.timing import Schedule
from circuit_script.releases import content_hash
from circuit_script.releases import sent as wire
from circuit_script.releases.archive import LARGEST, pack
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import DEPLOY, NOTHING, ROLLBACK
from circuit_script.releases.records import manifest_of
from circuit_script.releases.sent import MEDIA_TYPE, Sent, digest_of, received, sent
from circuit_script.releases.store import NewRelease

T = TypeVar("T")
HEADERS = {"content-type": MEDIA_TYPE}
HANDLERS = (
    HandlerSpec("score", (("Contact", "afterInsert"),), file="app/triggers.py", line=3, doc="Scores.", budget=1.5),
    HandlerSpec("leads", (), endpoint=EndpointSpec((Way(("GET",), "/leads", "/leads", (1, 2)),))),
    HandlerSpec("nightly", (), job=JobSpec("scheduled", takes=("a",), schedule=Schedule(cron="0 7 * * *"))),
)


def report(**more: Any) -> dict[str, Any]:
    step = {"step": "pack", "outcome": "passed", "seconds": 0.1, "detail": "2 files"}
    gates = {"validated_at": datetime.now(UTC).isoformat(), "ground": {"Python": "3.11"}, "steps": [step]}
    return {"pytest": 0, "deploy": gates | more}


def app(folder: Path, word: str = "one") -> NewRelease:
    """An app's files, packed, as who deploys has them."""
    (folder / "app").mkdir(parents=True, exist_ok=True)
    (folder / "app" / "triggers.py").write_text(f"WORD = {word!r}\n")
    (folder / "circuit.toml").write_text("")
    source = pack(folder)
    return NewRelease(
        content_hash(folder), source, HANDLERS, None, "nobody", f"why {word}", "humanize==4.9.0\n", report()
    )


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    made = await open_connection(database)
    yield made
    await made.close()


@pytest.fixture
async def client(database: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings(folder=tmp_path / "host", gateway=GatewaySettings(port=0)), database) as client:
        yield client


async def token_of(connection: Connection, name: str, tenant: str, role: Role, most: Role | None = None) -> str:
    await add_person(connection, name, "test")
    await grant(connection, name, tenant, role, "test")
    return (await make_token(connection, name, "laptop", most=most))[0]


@pytest.fixture
async def developer(connection: Connection, client: httpx.AsyncClient) -> str:
    """Whose token the client sends, from here on."""
    token = await token_of(connection, "ann@example.com", ALL, Role.developer)
    client.headers["authorization"] = f"Bearer {token}"
    return token


def way(client: httpx.AsyncClient, token: str) -> ByAddress:
    return ByAddress(str(client.base_url).removesuffix("/api/v1/"), token)


async def ask(by: ByAddress, what: Callable[[Place], Awaitable[T]]) -> T:
    """As a command of its own does."""
    return await asyncio.to_thread(by.ask, what)


async def test_a_release_goes_there_live_and_back_with_who_did_it(
    connection: Connection, client: httpx.AsyncClient, developer: str, tmp_path: Path
) -> None:
    by = way(client, developer)
    first, second = app(tmp_path / "a"), app(tmp_path / "b", "two")
    steps = Steps(Console(quiet=True))

    async def story(place: Place) -> None:
        nothing = await place.standing()
        assert (nothing.live, nothing.before, nothing.last, nothing.workers) == (None, None, 0, 0)
        one = await place.keep(first)
        assert (one.version, one.digest, one.author, one.message) == (
            "v1.0.0",
            first.digest,
            "ann@example.com",
            "why one",
        )
        assert (one.handlers, one.requirements, one.report) == (3, "humanize==4.9.0\n", first.report)
        assert await place.keep(first) == one, "the same files are the same release"
        assert await place.find(first.digest[:10]) == one
        with steps.step("warm") as step:
            assert await warm(place, one, 5, step) == NOBODY
        move = await place.go_live(one, Going(DEPLOY, "", NOTHING, "first", timedelta(seconds=0.1)))
        assert (move.release, move.by, move.kind, move.reason) == (one.id, "ann@example.com", "deploy", "first")
        with pytest.raises(ReleaseRefused, match="went live meanwhile"):
            await place.go_live(one, Going(DEPLOY, "", NOTHING))
        two = await place.keep(second)
        with pytest.raises(ReleaseRefused, match="went live meanwhile"):
            await place.go_live(two, Going(DEPLOY, "", two.id))
        moved = await place.go_live(two, Going(DEPLOY, "", one.id, watch=timedelta(minutes=1)))
        back = await place.go_live(one, Going(ROLLBACK, "", two.id, "too many points"))
        assert [each.id for each in await place.moves()] == [back.id, moved.id, move.id]
        with steps.step("watch") as step:
            watched = await watch(place, moved, step)
        assert watched.next == back
        now = await place.standing()
        assert (now.live, now.before, now.last) == (await place.find("v1.0.0"), await place.find("v1.0.1"), back.id)
        assert await place.last_started(one, move.at) is None
        listed = await place.listed(1, move.at)
        assert [(each.name, each.live, each.report) for each in listed.releases] == [("v1.0.1", False, {})]
        assert (listed.counts, list(listed.moves)) == ({two.id: Counts()}, [back])
        shown = await place.shown("v1.0.1")
        assert [each.id for each in shown.moves] == [back.id, moved.id]
        assert (shown.release.report, list(shown.hosts), shown.counts) == (two.report, [], Counts())

    await ask(by, story)
    kept = await (await connection.execute("SELECT source FROM circuit.release_sources ORDER BY release")).fetchall()
    assert [bytes(each) for (each,) in kept] == [first.source, second.source]
    manifest = await (await connection.execute("SELECT manifest FROM circuit.releases WHERE id = 1")).fetchone()
    assert manifest is not None
    assert manifest[0] == plain(manifest_of(HANDLERS))


async def test_only_who_may_deploy_for_all_tenants_may_ask(
    connection: Connection, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    new = app(tmp_path / "a")
    tokens = {
        "a viewer": await token_of(connection, "viewer", ALL, Role.viewer),
        "an operator": await token_of(connection, "operator", ALL, Role.operator),
        "an owner of one tenant": await token_of(connection, "one", "acme", Role.owner),
        "a token for looking": await token_of(connection, "less", ALL, Role.owner, Role.viewer),
    }
    for who, token in tokens.items():
        with pytest.raises(ElsewhereRefused, match="developer for all tenants") as caught:
            await ask(way(client, token), lambda place: place.keep(new))
        assert "people grant NAME developer --tenant '*'" in caught.value.cure, who
    with pytest.raises(ElsewhereRefused, match="wrong, revoked or over"):
        await ask(way(client, "csp_" + "A" * 43), lambda place: place.standing())
    assert await (await connection.execute("SELECT FROM circuit.releases")).fetchall() == []


def packed(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for each in entries:
            entry, data = each if isinstance(each, tuple) else (each, b"")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def linked(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    return entry


def named(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), b"x = 1\n"


class Nothing(io.RawIOBase):
    """Zeros, without an end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def bomb() -> bytes:
    """300 MB in a few hundred KB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for number in range(2):
            entry = tarfile.TarInfo(f"app/{number}.csv")
            entry.size = 150 * 2**20
            archive.addfile(entry, io.BufferedReader(Nothing()))
    return buffer.getvalue()


def endless_header() -> bytes:
    entry = tarfile.TarInfo("app/a.py")
    entry.pax_headers = {"comment": "x" * 200_000}
    return packed((entry, b""))


def nested_headers() -> bytes:
    """Each header's next is another header, a thousand times over."""
    block = tarfile.TarInfo("././@PaxHeader")
    block.type, block.size = tarfile.XHDTYPE, 11
    one = block.tobuf(tarfile.USTAR_FORMAT) + b"11 path=a\n\0".ljust(512, b"\0")
    return gzip.compress(one * 5000)


HOSTILE = {
    "a path above": lambda: packed(named("../../etc/cron.d/a.py")),
    "an absolute path": lambda: packed(named("/etc/a.py")),
    "a path with a dot": lambda: packed(named("app/./a.py")),
    "a link": lambda: packed(linked("app/a.py", "/etc/passwd")),
    "a hard link": lambda: packed(named("app/a.py"), linked("app/b.py", "app/a.py", tarfile.LNKTYPE)),
    "a device": lambda: packed(linked("app/a.py", "", tarfile.CHRTYPE)),
    "a folder": lambda: packed(linked("app", "", tarfile.DIRTYPE)),
    "a file of no release": lambda: packed(named("app/a.so")),
    "settings": lambda: packed(named("circuit.toml")),
    "an ignored folder": lambda: packed(named(".git/a.py")),
    "a file twice": lambda: packed(named("app/a.py"), named("app/a.py")),
    "another order": lambda: packed(named("app/b.py"), named("app/a.py")),
    "a file in a file": lambda: packed(named("app/a.py"), named("app/a.py/b.py")),
    "a name for terminals": lambda: packed(named("app/\x1b[2Ja.py")),
    "a backslash": lambda: packed(named("app\\..\\a.py")),
    "half of one": lambda: packed((tarfile.TarInfo("app/a.py"), random.Random(1).randbytes(200_000)))[:100_000],
    "no archive": lambda: b"PK\x03\x04" + bytes(1000),
    "nothing": lambda: b"",
    "a long header": endless_header,
    "headers of headers": nested_headers,
    "a bomb": bomb,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_deploy_packs_is_refused(name: str) -> None:
    with pytest.raises(ReleaseRefused):
        digest_of(HOSTILE[name]())


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_of_an_archive_is_that_of_the_folder(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    words = ["a", "b", "a b", "z" * 120, "ünï", "A", "a.b", "a-b", "0"]
    for _ in range(chance.randrange(1, 40)):
        folder = tmp_path.joinpath(*chance.choices(words, k=chance.randrange(3)))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chance.choice(words)}.{chance.choice(['py', 'csv', 'so'])}").write_bytes(
            chance.randbytes(chance.choice([0, 1, 511, 512, 513, 70_000]))
        )
    assert digest_of(pack(tmp_path)) == content_hash(tmp_path)


def body(new: NewRelease, **changed: Any) -> bytes:
    """What is sent of it, changed."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(sent(new)) | changed)


def plain(value: Any) -> Any:
    """As JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def handler(**changed: Any) -> list[dict[str, Any]]:
    return [plain(manifest_of(HANDLERS))[0] | changed]


def job(**changed: Any) -> list[dict[str, Any]]:
    found: dict[str, Any] = plain(manifest_of(HANDLERS))[2]
    found["job"]["schedule"] |= changed
    return [found]


WRONG: dict[str, dict[str, Any]] = {
    "another hash": {"digest": "0" * 64},
    "no hash": {"digest": "../../etc"},
    "a field that nobody knows": {"by": "somebody"},
    "no report": {"report": {}},
    "gates of tomorrow": {"report": report(validated_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())},
    "gates without a zone": {"report": report(validated_at="2026-05-01T08:00:00")},
    "steps of another form": {"report": report(steps=[{"step": "pack"}])},
    "a range of packages": {"requirements": "humanize>=4\n"},
    "an index of packages": {"requirements": "-i https://evil.example\n"},
    "a package of an address": {"requirements": "humanize @ https://evil.example/a.whl\n"},
    "an option of a package": {"requirements": 'humanize==4.9.0 --global-option="x"\n'},
    "a variable": {"requirements": "humanize==4.9.0 ; python_version > '${HOME}'\n"},
    "a handler that says more": {"handlers": handler(shell="rm")},
    "a handler without a name": {"handlers": handler(name="")},
    "a handler twice": {"handlers": handler() * 2},
    "a limit that is none": {"handlers": handler(limits={"callouts": -1})},
    "an unknown limit": {"handlers": handler(limits={"callouts": 5, "vendors": 1})},
    "an endpoint that says more": {"handlers": handler(endpoint={"ways": [], "root": True})},
    "a schedule that is none": {"handlers": job(cron="61 * * * *")},
    "a schedule of no zone": {"handlers": job(timezone="Mars/Base")},
    "a schedule without rest": {"handlers": job(cron=None, every=-1.0)},
    "a long jitter": {"handlers": job(jitter=1e300)},
    "a version that is none": {"version": "latest"},
    "no text for a database": {"message": "a\0b"},
    "too much of a message": {"message": "x" * 10_001},
}  # fmt: skip


async def test_what_is_not_what_it_says_is_refused_and_nothing_is_kept(
    connection: Connection, client: httpx.AsyncClient, developer: str, tmp_path: Path
) -> None:
    new = app(tmp_path / "a")
    for name, changed in WRONG.items():
        answer = await client.post("/releases", content=body(new, **changed), headers=HEADERS)
        assert answer.status_code in (409, 422), (name, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", name
    for content in (b"", b"{}", msgspec.msgpack.encode([1]), sent(new)[:-10], b"\x91" * 100_000):
        answer = await client.post("/releases", content=content, headers=HEADERS)
        assert answer.status_code == 422, answer.text
    assert (await client.post("/releases", content=sent(new))).status_code == 415
    assert await (await connection.execute("SELECT FROM circuit.releases")).fetchall() == []
    assert (await client.post("/releases", content=sent(new), headers=HEADERS)).status_code == 201


async def test_a_body_is_read_to_its_bound_and_half_of_one_leaves_nothing(
    connection: Connection, client: httpx.AsyncClient, developer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = app(tmp_path / "a")
    large = msgspec.structs.replace(msgspec.msgpack.decode(sent(new), type=Sent), source=bytes(LARGEST + 1))
    answer = await client.post("/releases", content=msgspec.msgpack.encode(large), headers=HEADERS)
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid")
    assert "at most 16,777,216" in answer.json()["detail"]
    with pytest.raises(ReleaseRefused, match="may be said of a release"):
        received(body(new, report=report() | {"noise": "x" * wire.MOST_SAID}), "ann")

    async def pieces(number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield bytes(2**20)

    too_much = await client.post("/releases", content=pieces(19), headers=HEADERS)
    assert (too_much.status_code, too_much.json()["reason"]) == (413, "too-large")

    async def broken() -> AsyncIterator[bytes]:
        yield sent(new)[:500]
        raise ConnectionError("the line is cut")

    for _ in range(4):  # more than may be received at a time: each gives its turn back
        with pytest.raises(ConnectionError):
            await client.post("/releases", content=broken(), headers=HEADERS)
    assert await (await connection.execute("SELECT FROM circuit.releases")).fetchall() == []
    while (answer := await client.post("/releases", content=sent(new), headers=HEADERS)).status_code == 503:
        assert answer.json()["reason"] == "overloaded"
    assert answer.status_code == 201


async def test_of_two_at_once_each_is_kept_and_one_goes_live(
    connection: Connection, client: httpx.AsyncClient, developer: str, tmp_path: Path
) -> None:
    news = [app(tmp_path / word, word) for word in ("a", "b")]
    rows = await asyncio.gather(*(ask(way(client, developer), lambda place, n=new: place.keep(n)) for new in news))
    assert sorted(str(each.version) for each in rows) == ["v1.0.0", "v1.0.1"]
    going = Going(DEPLOY, "", NOTHING)
    found = await asyncio.gather(
        *(ask(way(client, developer), lambda place, r=row: place.go_live(r, going)) for row in rows),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in found) == ["Move", "ReleaseRefused"]
    assert len(await (await connection.execute("SELECT FROM circuit.moves")).fetchall()) == 1


async def test_what_there_is_not_is_told_with_what_there_is(
    client: httpx.AsyncClient, developer: str, tmp_path: Path
) -> None:
    by = way(client, developer)
    await ask(by, lambda place: place.keep(app(tmp_path / "a")))
    with pytest.raises(ReleaseUnknown, match=r"Did you mean v1\.0\.0"):
        await ask(by, lambda place: place.find("v1.0.1"))
    for name in ("../../status", "\0", "", "x" * 500, "v1.0.0?a=b", "\u202e"):
        with pytest.raises((ReleaseUnknown, ElsewhereRefused)):
            await ask(by, lambda place, n=name: place.find(n))
    assert (await client.get("/releases/moves/7")).json()["reason"] == "not-found"
    assert (await client.get("/releases/v1.0.0")).json()["release"]["version"] == "v1.0.0"
    (item,) = (await client.get("/releases")).json()["items"]
    assert (item["name"], item["executions"], item["live"]) == ("v1.0.0", 0, False)
    assert "report" not in item
    for asked in ({}, {"expected": -1}, {"expected": 0, "by": "bob"}, {"expected": 0, "watch": 1e9}):
        assert (await client.post("/releases/v1.0.0/live", json=asked)).status_code == 422


@contextmanager
def answering(status: int, said: bytes = b"", **headers: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Somebody at an address who answers like that; the headers of what came."""
    heard: list[dict[str, str]] = []

    class Somebody(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Somebody)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refusal(url: str) -> CircuitError:
    with pytest.raises(ElsewhereRefused) as caught:
        ByAddress(url, "csp_secret").ask(lambda place: place.standing())
    assert "csp_secret" not in str(caught.value)
    return caught.value


LIVE = b'{"platform": "%s", "live": null, "before": null, "last": 0, "workers": 1, "now": "2026-05-01T08:00:00Z"}'


def test_the_token_goes_nowhere_else_and_strangers_are_told_apart() -> None:
    with answering(200, LIVE % b"0.1.7") as (elsewhere, heard):
        with answering(302, Location=f"{elsewhere}/api/v1/releases/live") as (url, _):
            assert "sends on to http://127.0.0.1" in refusal(url).detail
        assert heard == []
        assert ByAddress(elsewhere, "csp_secret").ask(lambda place: place.standing()).workers == 1
        assert heard[0]["authorization"] == "Bearer csp_secret"
    assert isinstance(refusal(elsewhere), ElsewhereAway)
    for status, said, why in (
        (404, b"<html>", "an older platform, or no platform"),
        (404, b'{"title": "Not Found", "status": 404, "detail": "Not Found"}', "an older platform"),
        (200, b"<html>", "is not understood"),
        (200, b'{"live": 3}', "is not understood"),
        (200, LIVE % b"9.0.0", r"is newer: 9.0.0"),
        (200, LIVE % b"0.0.4", r"is older: 0.0.4"),
        (500, b'{"detail": "\\u001b[2Jbad"}', "answers 500: \ufffd[2Jbad."),
        (200, b" " * (places_http.MOST + 1), "answers with more"),
    ):
        with answering(status, said) as (url, _):
            found = refusal(url)
            assert why in found.detail, found
            assert found.cure
    for status in (502, 503, 504):
        with answering(status) as (url, _):
            assert isinstance(refusal(url), ElsewhereAway)


def test_a_certificate_that_is_refused_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1006)")
    found = places_http._unreachable(ByAddress("https://ops.example.com", "csp_secret"), error)
    assert isinstance(found, ElsewhereRefused)
    assert not isinstance(found, ElsewhereAway), "it is not tried again"
    assert found.detail == "The certificate of ops.example.com is refused: self-signed."
    assert "SSL_CERT_FILE" in found.cure


def test_an_address_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_TOKEN", "csp_secret")
    for to, why in (
        ("http://ops.example.com", "--insecure"), ("http://127.0.0.1.example.com", "--insecure"),
        ("http://localhost.example.com:8000", "--insecure"), ("https://ann:csp_secret@ops.example.com", "no password"),
        ("https://csp_secret@ops.example.com", "no password"), ("ops.example.com", "must be like"),
        ("ftp://ops.example.com", "must be like"), ("https://", "must be like"), ("https://a:b", "must be like"),
        ("https://ops.example.com/?token=x", "must be like"), ("https://ops.example.com/\n", "must be like"),
    ):  # fmt: skip
        with pytest.raises(BadParameter, match=why):
            by_address(to, insecure=False)
    for to in ("https://ops.example.com/", "http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000"):
        assert by_address(to, insecure=False).url == to.rstrip("/")
    found = by_address("http://ops.example.com", insecure=True)
    assert (found.option, found.name) == (" --to http://ops.example.com --insecure", "ops.example.com")
    assert "csp_secret" not in repr(found)
    for token in ("", "   ", "a\nb", "ünï"):
        monkeypatch.setenv("CIRCUIT_TOKEN", token)
        with pytest.raises(ElsewhereRefused, match="people token NAME laptop"):
            by_address("https://ops.example.com", insecure=False)
