"""A release's files, kept and unpacked again."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_script.errors import ReplayRefused
from circuit_script.releases import Release, archive, content_hash, make_live
from circuit_script.releases.archive import TooLarge, check_kept, keep_source, pack, remove_abandoned, unpacked
from tests.road import SCORE, Road, open_road


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "triggers.py").write_text("WORD = 1\n")
    (tmp_path / "prices.csv").write_text("a;b\n")
    (tmp_path / "circuit.toml").write_text("# whose accounts are whose\n")
    (tmp_path / ".env").write_text("KEY=secret\n")
    (tmp_path / ".circuit").mkdir()
    (tmp_path / ".circuit" / "state.json").write_text("{}")
    return tmp_path


async def live(road: Road, folder: Path) -> Release:
    async with road.pool.connection() as connection:
        release = await make_live(connection, content_hash(folder), [SCORE])
        await keep_source(connection, release, folder)
        return release


async def test_what_is_kept_is_what_the_hash_covers_and_no_secret(road: Road, app: Path) -> None:
    release = await live(road, app)
    (app / "app" / "triggers.py").write_text("WORD = 2\n")

    async with road.pool.connection() as connection, unpacked(connection, release.id) as folder:
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert files == ["app/triggers.py", "prices.csv"]
        assert (folder / "app" / "triggers.py").read_text() == "WORD = 1\n"
        assert content_hash(folder) == release.content_hash
    assert not folder.exists()


async def test_the_same_release_is_kept_once(road: Road, app: Path) -> None:
    first, second = await live(road, app), await live(road, app)
    assert first.id == second.id
    assert await road.rows("SELECT release FROM circuit.release_sources") == [first.id]


async def test_what_changed_since_its_import_or_is_too_large_is_not_kept(
    road: Road, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with road.pool.connection() as connection:
        release = await make_live(connection, "another digest", [SCORE])
        await keep_source(connection, release, app)
    monkeypatch.setattr(archive, "LARGEST", 10)
    other = await live(road, app)

    assert await road.rows("SELECT release FROM circuit.release_sources") == []
    async with road.pool.connection() as connection:
        with pytest.raises(ReplayRefused, match="were not kept"):
            async with unpacked(connection, other.id):
                pass


def test_files_that_are_far_too_large_are_not_even_read(app: Path) -> None:
    with (app / "all.csv").open("wb") as sparse:
        sparse.truncate(archive.LARGEST * archive.RATIO + 1)
    (app / "all.csv").chmod(0)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            pack(app)
        assert tracemalloc.get_traced_memory()[1] < archive.LARGEST
    finally:
        tracemalloc.stop()


async def test_files_that_are_not_what_they_were_are_not_run(road: Road, app: Path) -> None:
    release = await live(road, app)
    (app / "prices.csv").write_text("c;d\n")
    await road.run("UPDATE circuit.release_sources SET source = %s", pack(app))

    async with road.pool.connection() as connection:
        with pytest.raises(ReplayRefused, match="are not what they were"):
            async with unpacked(connection, release.id):
                pass


async def test_tenants_cannot_read_the_files(road: Road, app: Path) -> None:
    await live(road, app)
    allowed = "SELECT has_table_privilege('circuit_tenant', 'circuit.release_sources', 'SELECT')"
    assert await road.rows(allowed) == [False]


async def test_who_asks_beforehand_hears_whether_a_release_can_be_unpacked(road: Road, app: Path) -> None:
    release = await live(road, app)
    async with road.pool.connection() as connection:
        await check_kept(connection, release.id)
        with pytest.raises(ReplayRefused, match="There is no release 999"):
            await check_kept(connection, 999)
        await connection.execute("DELETE FROM circuit.release_sources")
        with pytest.raises(ReplayRefused, match="were not kept"):
            await check_kept(connection, release.id)


async def test_what_a_killed_worker_has_left_is_removed_and_what_is_used_stays(
    road: Road, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = await live(road, app)
    (place := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    left, young, other = (place / name for name in ("circuit-release-left", "circuit-release-young", "other"))
    for folder in (left, young, other):
        (folder / "app").mkdir(parents=True)
        (folder / "app" / "triggers.py").write_text("WORD = 1\n")
    (place / "circuit-release-link").symlink_to(other)

    async with road.pool.connection() as connection, unpacked(connection, release.id) as used:
        for folder in (left, other, used):
            os.utime(folder, (0, 0))
        remove_abandoned()
        assert not left.exists()
        assert all((folder / "app" / "triggers.py").exists() for folder in (young, other, used))
    assert not used.exists()


async def test_folders_are_open_to_strict_children_whatever_the_umask_is(road: Road, app: Path) -> None:
    release = await live(road, app)
    before = os.umask(0o077)
    try:
        async with road.pool.connection() as connection, unpacked(connection, release.id) as folder:
            modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "app", folder / "app" / "triggers.py")]
    finally:
        os.umask(before)
    assert modes == [0o700, 0o755, 0o644]
