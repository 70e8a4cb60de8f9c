"""Copies by plan: one worker makes them, in a bucket of a real S3 server; what is too old goes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from circuit_script.backup import back_up, file_name, open_place, restore, schedule
from circuit_script.backup.forgets import add_list, lists_in, read_forgets, write_forgets
from circuit_script.backup.places import FolderPlace, outdated
from circuit_script.backup.planned import LOCK, NOT_NOW, Plan, copy_now
from circuit_script.backup.schedule import _run as run_planned
from circuit_script.cli.doctor.check import State
from circuit_script.cli.doctor.upkeep import upkeep
from circuit_script.clock import now
from circuit_script.config import BackupSettings, Settings
from circuit_script.db.pool import Connection, open_connection
from circuit_script.erasure import Person, Remembered, forget, remembered
from circuit_script.errors import BackupRefused, ConfigError, DatabaseUnavailable
from circuit_script.events.chores import BACKUP
from circuit_script.events.status import StatusReader
from tests.aws import standing_in
from tests.road import Road, contact, open_road
from tests.servers import Server

BUCKET = "acme-copies"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3, with one bucket."""
    with standing_in("s3", lambda client: client.create_bucket(Bucket=BUCKET)) as url:
        yield url


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.take_in(contact("c1", email="c1@example.com"))
        yield made


@pytest.fixture
def plan(road: Road, tmp_path: Path) -> Plan:
    (tmp_path / "state").mkdir()
    return Plan(road.url, str(tmp_path / "copies"), every=3600, keep=3, endpoint_url="", folder=str(tmp_path / "state"))


@pytest.fixture
def in_a_bucket(plan: Plan, s3: str, request: pytest.FixtureRequest) -> Plan:
    return replace(plan, to=f"s3://{BUCKET}/{request.node.name}", endpoint_url=s3)


async def connect(road: Road) -> Connection:
    return await open_connection(road.url)


async def again(road: Road) -> None:
    """An interval later."""
    await road.run("UPDATE circuit.upkeep SET succeeded_at = succeeded_at - interval '1 day', failed_at = NULL")


@pytest.mark.slow
async def test_a_copy_in_a_bucket_is_a_backup_that_can_be_restored(
    road: Road, in_a_bucket: Plan, server: Server, tmp_path: Path
) -> None:
    plan = in_a_bucket
    where = await copy_now(plan)

    prefix, _, name = where.rpartition("/")
    assert prefix == plan.to
    await open_place(plan.to, plan.endpoint_url).fetch(name, tmp_path / "fetched")
    target = server.create_database(None)
    try:
        await restore(tmp_path / "fetched", server.url(target))
        async with open_road(server.url(target)) as other:
            assert await other.rows("SELECT record FROM circuit.events") == ["c1"]
    finally:
        server.drop_database(target)
    assert list(Path(plan.folder).iterdir()) == [], "nothing half made is left"


async def test_it_is_made_when_it_is_due_and_not_before(road: Road, plan: Plan) -> None:
    assert await copy_now(plan) != NOT_NOW
    assert await copy_now(plan) == NOT_NOW
    await again(road)
    assert await copy_now(plan) != NOT_NOW


async def test_only_one_worker_of_all_makes_it(road: Road, plan: Plan) -> None:
    async with road.pool.connection() as other, other.transaction():
        await other.execute(LOCK)
        assert await copy_now(plan) == NOT_NOW
    assert await copy_now(plan) != NOT_NOW


async def _old_copies_go(road: Road, plan: Plan) -> None:
    place = open_place(plan.to, plan.endpoint_url)
    file = Path(plan.folder).parent / "some"
    file.write_bytes(b"x")
    (own,) = await road.rows("SELECT id::text FROM circuit.installation")
    old = [f"circuit-{own[:8]}-2026010{n}T020000Z-planned.backup" for n in range(1, 6)]
    foreign = [
        f"circuit-{own[:8]}-20250101T020000Z.backup",
        "circuit-00000000-20250101T020000Z-planned.backup",
        "notes",
    ]
    for name in old + foreign:
        await place.put(file, name)

    where = await copy_now(plan)

    assert await place.names() == sorted([*foreign, *old[-2:], where.rpartition("/")[2]])


async def test_old_copies_go_but_for_those_of_others_and_those_made_by_hand(road: Road, plan: Plan) -> None:
    await _old_copies_go(road, plan)


@pytest.mark.slow
async def test_old_copies_go_from_a_bucket_too(road: Road, in_a_bucket: Plan) -> None:
    await _old_copies_go(road, in_a_bucket)


@pytest.mark.slow
async def test_the_worker_has_it_made_by_a_process_of_its_own(road: Road, plan: Plan) -> None:
    await run_planned(plan)

    ((detail, failure),) = await road.rows("SELECT detail, failure FROM circuit.upkeep WHERE chore = 'backup'")
    assert detail["where"].startswith(plan.to)
    assert failure is None


@pytest.mark.slow
async def test_what_goes_wrong_is_shown_and_tried_again_and_what_goes_well_clears_it(
    road: Road, in_a_bucket: Plan
) -> None:
    plan = in_a_bucket
    wrong = Plan(road.url, "s3://no-such-bucket/x", plan.every, plan.keep, plan.endpoint_url, plan.folder)
    with pytest.raises(BackupRefused, match="Make the bucket"):
        await copy_now(wrong)
    assert await copy_now(wrong) == NOT_NOW, "not again and again"
    (row,) = (await StatusReader(road.pool).read()).upkeep
    assert (row["chore"], row["succeeded_at"]) == (BACKUP, None)
    assert "does not exist" in row["failure"]
    settings = Settings(backup=BackupSettings(to=plan.to))
    async with await connect(road) as connection:
        checks = [check async for check in upkeep(connection, settings, working=True)]
    assert [check.state for check in checks if check.name == BACKUP] == [State.bad]

    await road.run("UPDATE circuit.upkeep SET failed_at = failed_at - interval '1 hour'")
    assert await copy_now(plan) != NOT_NOW

    (row,) = (await StatusReader(road.pool).read()).upkeep
    assert row["failure"] is None
    assert row["detail"]["rows"] > 0
    async with await connect(road) as connection:
        checks = [check async for check in upkeep(connection, settings, working=True)]
    assert [check.state for check in checks if check.name == BACKUP] == [State.good]


@pytest.mark.slow
async def test_a_copy_that_is_cut_short_leaves_nothing_and_what_was_killed_is_removed(road: Road, plan: Plan) -> None:
    folder, state = Path(plan.to), Path(plan.folder)
    (own,) = await road.rows("SELECT id::text FROM circuit.installation")
    (state / "copying-by-one-that-was-killed").mkdir()
    folder.mkdir()
    (folder / f"circuit-{own[:8]}-20260101T020000Z-planned.backup.part").write_bytes(b"x")
    async with road.pool.connection() as other, other.transaction():
        await other.execute("LOCK TABLE circuit.records IN ACCESS EXCLUSIVE MODE")
        making = asyncio.create_task(run_planned(plan))
        await road.until("SELECT count(*) FROM pg_locks WHERE NOT granted", [1])
        making.cancel()  # as a worker that stops does
        with pytest.raises(asyncio.CancelledError):
            await making
    assert list(state.iterdir()) == []

    where = await copy_now(plan)

    assert list(folder.iterdir()) == [Path(where)]


def test_a_copy_is_for_its_owner_only_from_its_first_byte_and_half_of_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def stop(read: object, written: IO[bytes], length: int) -> None:
        modes.append(os.fstat(written.fileno()).st_mode)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", stop)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BackupRefused, match="No space left"):
        asyncio.run(open_place(str(tmp_path / "to")).put(tmp_path / "file", "copy"))
    assert [mode & 0o777 for mode in modes] == [0o600]
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.slow
async def test_a_worker_goes_on_making_copies_whatever_goes_wrong(
    road: Road, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "FIRST", 0.01)
    monkeypatch.setattr(schedule, "LOOK", 0.01)
    failures: list[Exception] = [DatabaseUnavailable("away"), psycopg.OperationalError("away"), OSError("no process")]
    started = schedule._run

    async def run(plan: Plan) -> None:
        if failures:
            raise failures.pop()
        await started(plan)

    monkeypatch.setattr(schedule, "_run", run)
    keeping = asyncio.create_task(schedule.keep_copies(road.pool, plan))
    try:
        await road.until("SELECT detail ->> 'where' IS NOT NULL FROM circuit.upkeep WHERE chore = 'backup'", [True])
        first = list(Path(plan.to).iterdir())
        await again(road)
        await road.until("SELECT succeeded_at > now() - interval '1 hour' FROM circuit.upkeep", [True])
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert len(first) == 1
    assert len(list(Path(plan.to).iterdir())) == 2


async def test_a_folder_is_a_place_too(road: Road, plan: Plan) -> None:
    where = await copy_now(plan)
    assert Path(where).stat().st_mode & 0o777 == 0o600
    assert list(Path(plan.to).iterdir()) == [Path(where)]


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "s3://bucket/x?y"])
def test_what_is_no_address_of_a_bucket_is_refused(address: str) -> None:
    with pytest.raises(BackupRefused, match="s3://bucket/prefix"):
        open_place(address, "http://127.0.0.1:9")


@pytest.mark.slow
async def test_the_list_of_forgets_outlives_the_database(road: Road, server: Server, tmp_path: Path) -> None:
    await back_up(road.url, tmp_path / "copy")
    async with await connect(road) as connection:
        await forget(connection, Person("c1", "acme"), "eva")
        write_forgets(tmp_path / "forgets.json", await remembered(connection))
        write_forgets(tmp_path / "forgets.json", await remembered(connection))  # and again says it once
    listed = read_forgets(tmp_path / "forgets.json")
    assert len(listed) == 1
    assert '"c1"' not in (tmp_path / "forgets.json").read_text()
    target = server.create_database(None)
    try:
        done = await restore(tmp_path / "copy", server.url(target), also_forgotten=listed)
        assert [each.record for each in done.forgotten] == ["c1"]
        async with await psycopg.AsyncConnection.connect(server.url(target)) as connection_:
            cursor = await connection_.execute("SELECT sum(octet_length(body)) FROM circuit.deliveries")
            assert await cursor.fetchone() == (0,)
    finally:
        server.drop_database(target)


def test_two_who_forget_at_once_are_both_on_the_list(tmp_path: Path) -> None:
    path = tmp_path / "forgets.json"
    entries = [Remembered("acme", None, b"salt", bytes([n]), now(), "eva", True) for n in range(16)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda entry: write_forgets(path, [entry]), entries))
    assert {each.hash for each in read_forgets(path)} == {each.hash for each in entries}


async def test_in_a_place_without_a_lock_no_writer_undoes_another(tmp_path: Path) -> None:
    class Together(FolderPlace):
        """Nobody puts before all have read."""

        async def put(self, file: Path, name: str) -> str:
            await together.wait()
            return await super().put(file, name)

    entries = [Remembered("acme", None, b"salt", bytes([n]), now(), "eva", True) for n in range(5)]
    together = asyncio.Barrier(4)
    place = Together(tmp_path)
    write_forgets(tmp_path / "forgets.json", entries[:1])  # of a host that put one list for all

    await asyncio.gather(*(add_list(place, [each]) for each in entries[1:]))
    assert {each.hash for each in await lists_in(place)} == {each.hash for each in entries}
    assert not (tmp_path / "forgets.json").exists(), "what it said stands in the others"

    await add_list(FolderPlace(tmp_path), [])
    assert {each.hash for each in await lists_in(place)} == {each.hash for each in entries}
    assert len(await place.names()) == 1

    (tmp_path / "forgets-0123456789abcdef0123456789abcdef.json").write_text("{")
    with pytest.raises(BackupRefused, match="who was forgotten"):
        await lists_in(place)


def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "forgets.json").write_text("{")
    with pytest.raises(BackupRefused, match="who was forgotten"):
        read_forgets(tmp_path / "forgets.json")


def test_names_say_whose_a_copy_is_and_of_when() -> None:
    names = [file_name("1f0c2d3e-aaaa", now(), planned=each) for each in (True, False)]
    assert outdated(names, "1f0c2d3e-aaaa", 0 + 1) == []
    older = "circuit-1f0c2d3e-20200101T000000Z-planned.backup"
    assert outdated([*names, older], "1f0c2d3e-aaaa", 1) == [older]


@pytest.mark.parametrize(("said", "seconds"), [("1d", 86400), ("6h", 21600), ("15m", 900)])
def test_intervals_are_said_in_minutes_hours_or_days(said: str, seconds: float) -> None:
    assert BackupSettings(every=said).seconds == seconds


@pytest.mark.parametrize("wrong", [{"every": "daily"}, {"every": "0h"}, {"keep": 0}, {"endpoint_url": "minio:9000"}])
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        BackupSettings(**wrong)
