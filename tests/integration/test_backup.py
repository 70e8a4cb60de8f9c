"""Copies are whole, consistent and checked; what is restored goes on where the copy was taken."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from circuit_script.backup import Manifest, back_up, restore, verify
from circuit_script.backup.tables import tables
from circuit_script.clock import now, uuid7
from circuit_script.config import Address
from circuit_script.erasure import Person, forget
from circuit_script.errors import BackupRefused
from circuit_script.events import maintenance
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Succeeded, Work
from tests.receiver import receiving, response
from tests.road import SCORE, Incoming, Road, contact, happens, open_road, score, succeed
from tests.servers import Server


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.live(SCORE)
        yield made


async def contents(url: str) -> dict[str, list[str]]:
    """Every row of every table that a copy holds, as text."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = {}
        for table in await tables(connection):  # type: ignore[arg-type]  # rows of any kind
            query = f"SELECT t::text FROM circuit.{table.name} AS t ORDER BY 1"
            found[table.name] = [row[0] for row in await (await connection.execute(query.encode())).fetchall()]
    return found


async def send_one(work: Work, broker: ExecutionBroker) -> Outcome:
    """Tell the shop of each contact."""
    for place, record in enumerate(work.records):
        asked = {"connector": "webhook", "operation": "post", "to": "shop", "payload": {"id": record["id"]}}
        await broker.request("send", {**asked, "record": place})
    return Succeeded(broker.usage)


async def fill(road: Road) -> None:
    await road.start(score)
    texts = ("plain", "tab\tnewline\nbackslash\\N quote\"'", "Grüße 🎉", "\\.", "")
    await road.take_in(*(contact(f"c{n}", name=text, nothing=None) for n, text in enumerate(texts)))
    await road.done()
    await road.close_workers()
    await road.run(
        "INSERT INTO circuit.deliveries (id, source, account, tenant, headers, body) VALUES (%s, 'x', 'x', NULL, '{}', "
        "decode('00ff5c0a5c4e0980', 'hex'))", uuid7(),
    )  # fmt: skip


@pytest.mark.every_server
async def test_what_is_restored_is_what_was_there(database: str, target: str, file: Path, pooler: bool) -> None:
    async with open_road(database, pooler) as road:
        await road.live(SCORE)
        await fill(road)

        manifest = await back_up(database, file)
        done = await restore(file, target)

        assert await contents(target) == await contents(database)
        assert done.manifest == manifest == verify(file)
        assert not done.replaced
        assert {each.name: each.rows for each in manifest.tables}["deliveries"] == 6
        assert file.stat().st_mode & 0o777 == 0o600
        assert not list(file.parent.glob("*.part"))


@pytest.mark.slow
async def test_ids_go_on_behind_the_latest_and_partitions_are_those_of_the_days(
    road: Road, target: str, file: Path
) -> None:
    await fill(road)
    await back_up(road.url, file)
    await restore(file, target)

    async with open_road(target) as other:
        (latest,) = await other.rows("SELECT max(id) FROM circuit.events")
        (home,) = await other.rows("SELECT count(*) FROM circuit.events_other")
        assert await other.rows("SELECT nextval('circuit.event_ids') > %s", latest) == [True]
        assert home == 0
        forced = "SELECT count(*) FROM pg_class WHERE relnamespace = 'circuit'::regnamespace AND relforcerowsecurity"
        assert await other.rows(forced) == await road.rows(forced)


@pytest.mark.slow
async def test_taken_under_load_it_is_one_moment_and_what_waited_runs_on_without_doing_anything_twice(
    road: Road, target: str, file: Path
) -> None:
    """Every delivery acknowledged before the copy is in it; effects that had arrived are not sent again."""
    async with receiving(lambda _: response(200)) as receiver:
        addresses = {"shop": Address(url=receiver.url)}
        worker = await road.start(send_one, size=2, addresses=addresses)
        courier = asyncio.create_task(worker.courier.run())
        acknowledged: list[UUID] = []
        enough = asyncio.Event()

        async def load() -> None:
            number = 0
            while not enough.is_set() and number < 1000:
                acknowledged.extend(await road.take_in(*(contact(f"c{number + n}") for n in range(20))))
                number += 20

        vendor = asyncio.create_task(load())
        await happens(lambda: len(receiver.got) >= 20, "the road is under way")
        before = list(acknowledged)
        manifest = await back_up(road.url, file)
        enough.set()
        await vendor
        worker.courier.stop()
        await courier
        await road.close_workers()

        await restore(file, target)
        async with open_road(target) as other:
            kept = set(await other.rows("SELECT id FROM circuit.deliveries"))
            assert set(before) <= kept, "an acknowledged delivery is missing"
            rows = {each.name: each.rows for each in manifest.tables}
            assert rows["deliveries"] == rows["events"] == len(kept), "not one moment"
            done_before = {
                str(id_) for id_ in await other.rows("SELECT id FROM circuit.effects WHERE status = 'delivered'")
            }
            receiver.got.clear()
            await other.live(SCORE)
            worker = await other.start(send_one, size=2, addresses=addresses)
            courier = asyncio.create_task(worker.courier.run())
            await other.done()
            await other.until("SELECT count(*) FROM circuit.effects WHERE status = 'pending'", [0])
            assert not done_before.intersection(got.headers["webhook-id"] for got in receiver.got), (
                "sent again, though it had arrived"
            )
            once = "SELECT count(*), count(DISTINCT record) FROM circuit.effects WHERE connector = 'webhook'"
            ((sent, people),) = await other.rows(once)
            assert sent == people == len(kept)
            await other.take_in(contact("new"))
            await other.done()
            worker.courier.stop()
            await courier


async def test_nobody_owns_anything_after_a_restore(road: Road, target: str, file: Path) -> None:
    await road.start(succeed)
    await road.until("SELECT count(*) FROM circuit.lanes WHERE owner IS NOT NULL", [64])
    for status in (200, None):
        await road.run(
            "INSERT INTO circuit.idempotency (tenant, endpoint, key, caller, request, execution, until, status) "
            "VALUES ('acme', 'chat', %s, '', '', %s, now() + interval '1 hour', %s)", str(status), uuid7(), status,
        )  # fmt: skip

    await back_up(road.url, file)
    await restore(file, target)

    async with open_road(target) as other:
        assert await other.rows("SELECT count(*) FROM circuit.lanes WHERE owner IS NULL AND low_water = 0") == [64]
        assert await other.rows("SELECT count(*) FROM circuit.workers") == [0]
        assert await other.rows("SELECT key FROM circuit.idempotency") == ["200"]
        mine = await road.rows("SELECT id FROM circuit.installation")
        assert await other.rows("SELECT id FROM circuit.installation") != mine


@pytest.mark.slow
async def test_with_pause_nothing_runs_before_somebody_has_looked(road: Road, target: str, file: Path) -> None:
    await road.take_in(contact("c1"))
    await back_up(road.url, file)

    await restore(file, target, paused_by="eva")

    async with open_road(target) as other:
        assert await other.rows("SELECT kind, by_whom FROM circuit.pauses") == [("everything", "eva")]


@pytest.mark.parametrize(
    "damage",
    ["cut", *(pytest.param(each, marks=pytest.mark.slow) for each in ("flipped", "swapped", "not a backup", "empty"))],
)
async def test_a_damaged_file_is_refused_before_anything_is_changed(
    road: Road, target: str, file: Path, damage: str
) -> None:
    await fill(road)
    await back_up(road.url, file)
    whole = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(whole[: len(whole) * 2 // 3])
        case "flipped":
            middle = whole.index(b"tables/records.copy") + 60
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        case "swapped":
            rewrite(file, "tables/forgets.copy", b"")
            rewrite(file, "manifest.json", None)
        case "not a backup":
            file.write_bytes(b"%PDF-1.7")
        case _:
            file.write_bytes(b"")

    with pytest.raises(BackupRefused, match="cut short or changed"):
        await restore(file, target)

    async with await psycopg.AsyncConnection.connect(target) as connection:
        row = await (await connection.execute("SELECT to_regnamespace('circuit') IS NULL")).fetchone()
    assert row == (True,)


def rewrite(file: Path, name: str, data: bytes | None) -> None:
    """The same zip with another member: every checksum of the zip itself fits."""
    with zipfile.ZipFile(file) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
        comment = archive.comment
    if data is None:
        said = json.loads(members[name])
        said["tables"] = [each for each in said["tables"] if each["name"] != "records"]
        members[name] = json.dumps(said).encode()
    else:
        members[name] = data
    with zipfile.ZipFile(file, "w") as archive:
        for each, text in members.items():
            archive.writestr(each, text)
        archive.comment = comment


async def test_a_table_with_other_rows_than_were_written_is_found(road: Road, file: Path) -> None:
    await fill(road)
    await back_up(road.url, file)
    rewrite(file, "tables/deliveries.copy", b"another\trow\n")

    with pytest.raises(BackupRefused, match="rows of deliveries"):
        verify(file)


async def test_a_file_that_is_not_there_or_of_a_newer_version_says_what_to_do(
    road: Road, target: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackupRefused, match="no file"):
        await restore(file, target)
    await road.run("INSERT INTO circuit.migrations (name, checksum) VALUES ('9999_later.pre', 'x')")
    await back_up(road.url, file)
    with pytest.raises(BackupRefused, match="9999_later"):
        await restore(file, target)


@pytest.mark.slow
async def test_a_database_that_is_not_empty_goes_only_by_its_name(road: Road, server: Server, file: Path) -> None:
    await fill(road)
    await back_up(road.url, file)
    name = server.create_database(None)
    target = server.url(name)
    try:
        await restore(file, target)
        before = await contents(target)
        with pytest.raises(BackupRefused, match="not empty"):
            await restore(file, target)
        with pytest.raises(BackupRefused, match="--replace names 'production'"):
            await restore(file, target, replace="production")
        assert await contents(target) == before

        done = await restore(file, target, replace=name)

        assert done.replaced
        assert await contents(target) == before
        async with await psycopg.AsyncConnection.connect(target) as connection:
            cursor = await connection.execute("SELECT to_regnamespace('circuit_before_restore') IS NULL")
            assert await cursor.fetchone() == (True,)
    finally:
        server.drop_database(name)


async def test_a_restore_that_fails_half_way_leaves_what_was_there(
    road: Road, server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(road)
    await back_up(road.url, file)
    name = server.create_database(None)
    target = server.url(name)
    try:
        await restore(file, target)
        before = await contents(target)

        def told(table: str, done: int, of: int) -> None:
            if table == "records":
                raise RuntimeError("pulled the plug")

        with pytest.raises(RuntimeError, match="plug"):
            await restore(file, target, replace=name, told=told)
        assert await contents(target) == before
    finally:
        server.drop_database(name)


async def test_a_copy_that_ends_half_way_leaves_no_file(road: Road, file: Path) -> None:
    def told(table: str, done: int, of: int) -> None:
        raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="plug"):
        await back_up(road.url, file, told)
    assert list(file.parent.iterdir()) == []


@pytest.mark.slow
async def test_who_was_forgotten_after_the_copy_is_forgotten_in_it_again(
    road: Road, server: Server, file: Path
) -> None:
    await road.start(score)
    await road.take_in(
        contact("anna", email="anna@example.com"),
        contact("ben", email="ben@example.com"),
        Incoming("anna", tenant="other", fields={"email": "anna@example.com"}),
    )
    await road.done()
    await road.close_workers()
    await back_up(road.url, file)
    name = server.create_database(None)
    target = server.url(name)
    try:
        await restore(file, target)
        async with open_road(target) as other, other.pool.connection() as connection:
            await forget(connection, Person("anna", "acme"), "eva")

        done = await restore(file, target, replace=name)

        assert [(each.record, each.tenant) for each in done.forgotten] == [("anna", "acme")]
        async with open_road(target) as other:
            left = await other.rows("SELECT tenant, id FROM circuit.records WHERE data <> '{}' ORDER BY 1, 2")
            assert left == [("acme", "ben"), ("other", "anna")]
            bodies = "SELECT count(*) FROM circuit.deliveries WHERE octet_length(body) > 0"
            assert await other.rows(bodies) == [2]
            assert await other.rows("SELECT by_whom FROM circuit.forgets") == ["eva"]
    finally:
        server.drop_database(name)


async def test_a_partition_is_not_dropped_while_a_copy_is_made(road: Road, file: Path) -> None:
    await fill(road)
    tried: list[Exception] = []

    async def drop() -> None:
        try:
            async with road.pool.connection() as connection, connection.transaction():
                await connection.execute(maintenance.PATIENCE)
                await connection.execute(f"DROP TABLE circuit.deliveries_{now():%Y%m%d}".encode())
        except psycopg.errors.LockNotAvailable as error:
            tried.append(error)

    dropping: list[asyncio.Task[None]] = []

    def told(table: str, done: int, of: int) -> None:
        if not dropping:
            dropping.append(asyncio.create_task(drop()))

    manifest = await hold(road, file, told, dropping)
    assert tried, "it was dropped"
    assert {each.name: each.rows for each in manifest.tables}["deliveries"] == 6


async def hold(road: Road, file: Path, told: object, dropping: list[asyncio.Task[None]]) -> Manifest:
    """A copy that is slow: it waits for whoever wants to drop something meanwhile."""
    from circuit_script.backup import dump

    own = dump._table

    async def slow(*given: object) -> object:
        entry = await own(*given)  # type: ignore[arg-type]  # passed on as they are
        await asyncio.gather(*dropping)
        return entry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dump, "_table", slow)
        return await back_up(road.url, file, told)  # type: ignore[arg-type]  # a function of the test
