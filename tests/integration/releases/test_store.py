"""Releases that are kept: versions, names, and what is deployed twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import record_release
from circuit_script.releases.store import NewRelease, ReleaseRow, find_release, list_releases, put_release
from tests.road import Road, open_road

SCORE = HandlerSpec("score", (("Contact", "afterInsert"),))
OTHER = HandlerSpec("other", (("Contact", "afterUpdate"),))


def release(digest: str, version: str | None = None, *handlers: HandlerSpec) -> NewRelease:
    return NewRelease(
        digest=digest,
        source=b"archive of " + digest.encode(),
        handlers=handlers or (SCORE,),
        version=version,
        author="anna",
        message=f"why {digest}",
        requirements="humanize==4.9.0",
        report={"passed": True},
    )


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def put(road: Road, new: NewRelease) -> ReleaseRow:
    async with road.pool.connection() as connection:
        return await put_release(connection, new)


async def find(road: Road, name: str) -> ReleaseRow:
    async with road.pool.connection() as connection:
        return await find_release(connection, name)


async def test_a_release_is_kept_with_all_that_is_said_of_it(road: Road) -> None:
    row = await put(road, release("aaaa1111", None, SCORE, OTHER))

    assert (row.version, row.digest, row.author, row.message) == ("v1.0.0", "aaaa1111", "anna", "why aaaa1111")
    assert (row.live, row.handlers, row.report, row.requirements) == (False, 2, {"passed": True}, "humanize==4.9.0")
    assert await road.rows("SELECT source FROM circuit.release_sources") == [b"archive of aaaa1111"]
    assert await road.rows("SELECT count(*) FROM circuit.live") == [0], "nothing went live"


async def test_versions_count_up_from_the_highest(road: Road) -> None:
    said = [None, None, "v1.4.9", None, "v1.4.3", None]
    assert [(await put(road, release(f"d{n}", version))).version for n, version in enumerate(said)] == [
        "v1.0.0", "v1.0.1", "v1.4.9", "v1.4.10", "v1.4.3", "v1.4.11",
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "latest", ""])
async def test_what_is_no_version_is_refused(road: Road, version: str) -> None:
    with pytest.raises(ReleaseRefused, match=r"is no version.*v1\.0\.0"):
        await put(road, release("a", version))


async def test_a_used_version_is_refused_and_the_next_one_is_named(road: Road) -> None:
    await put(road, release("a", "v2.0.0"))
    with pytest.raises(ReleaseRefused, match=r"v2\.0\.0 is taken.*v2\.0\.1"):
        await put(road, release("b", "v2.0.0"))
    assert await road.rows("SELECT count(*) FROM circuit.releases") == [1]


async def test_the_same_files_are_the_row_that_is_there(road: Road) -> None:
    first = await put(road, release("a", "v1.0.0"))
    assert await put(road, release("a")) == first
    assert await put(road, release("a", "v1.0.0", OTHER)) == first, "nothing of it changes"
    with pytest.raises(ReleaseRefused, match=r"These files are v1\.0\.0 already"):
        await put(road, release("a", "v1.0.1"))


async def test_what_ran_from_its_folder_becomes_a_version_when_it_is_deployed(road: Road) -> None:
    async with road.pool.connection() as connection:
        before = await record_release(connection, "a", [SCORE])
    row = await put(road, release("a"))
    assert (row.id, row.version) == (before.id, "v1.0.0")
    async with road.pool.connection() as connection:
        await record_release(connection, "a", [OTHER, SCORE])
    assert (await find(road, "v1.0.0")).handlers == 1, "what was deployed never changes"


async def test_many_who_deploy_at_once_get_a_version_each_and_the_same_files_get_one(road: Road) -> None:
    rows = await asyncio.gather(*(put(road, release(f"d{n % 4}")) for n in range(12)))
    assert sorted({(row.digest, row.version) for row in rows}, key=lambda each: str(each[1])) == sorted(
        ((row.digest, row.version) for row in rows[:4]), key=lambda each: str(each[1])
    )
    assert {row.version for row in rows} == {"v1.0.0", "v1.0.1", "v1.0.2", "v1.0.3"}


async def test_a_release_is_found_by_version_number_and_hash(road: Road) -> None:
    first, second = await put(road, release("abcd1111")), await put(road, release("abcd2222"))
    for name in ("v1.0.0", "1.0.0", str(first.id), "abcd1", "abcd1111"):
        assert (await find(road, name)).id == first.id
    with pytest.raises(ReleaseUnknown, match=r"beginning of several: abcd2222.*abcd1111"):
        await find(road, "abcd")
    assert second.version == "v1.0.1"


async def test_who_misspells_one_hears_of_near_ones(road: Road) -> None:
    with pytest.raises(ReleaseUnknown, match="Nothing was deployed yet"):
        await find(road, "v1.0.0")
    await put(road, release("a", "v1.4.2"))
    for name in ("v1.4.3", "v14.2", "14.2"):
        with pytest.raises(ReleaseUnknown, match=r"v1\.4\.2"):
            await find(road, name)
    with pytest.raises(ReleaseUnknown, match=r"There are v1\.4\.2: circuit-script releases"):
        await find(road, "ffffffffff")
    with pytest.raises(ReleaseUnknown):
        await find(road, "9" * 40)


async def test_the_list_has_the_latest_first_and_nothing_that_was_only_tried(road: Road) -> None:
    async with road.pool.connection() as connection:
        await record_release(connection, "tried", [SCORE])
    await road.live(SCORE)
    await put(road, release("a"))
    await put(road, release("b"))
    async with road.pool.connection() as connection:
        rows = await list_releases(connection)
        assert [row.version for row in rows] == ["v1.0.1", "v1.0.0", None]
        assert [row.live for row in rows] == [False, False, True]
        assert len(await list_releases(connection, 1)) == 1


async def test_a_tenant_reads_what_a_release_is_and_not_who_made_it_and_how_it_was_tested(road: Road) -> None:
    reads = "has_column_privilege('circuit_tenant', 'circuit.releases', %s, 'SELECT')"
    seen = ("id", "content_hash", "platform", "manifest", "created_at", "version")
    assert [await road.rows(f"SELECT {reads}", column) for column in seen] == [[True]] * len(seen)
    hidden = ("author", "message", "report", "requirements", "wanted_at")
    assert [await road.rows(f"SELECT {reads}", column) for column in hidden] == [[False]] * len(hidden)
