"""What `deploy` waits for: every worker that lives, and what it says of those that do not come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console

from circuit_script.cli import deploy_watch
from circuit_script.cli.app_database import do
from circuit_script.cli.deploy_steps import Steps
from circuit_script.cli.deploy_watch import NOBODY, check_still_live, moved, through_restarts, warm, watch
from circuit_script.cli.environments import settings_in
from circuit_script.cli.places import InDatabase
from circuit_script.clock import uuid7
from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection
from circuit_script.errors import ConfigError, DatabaseUnavailable, DeployRefused
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import moving
from circuit_script.releases.kept import live_release, note_validated
from circuit_script.releases.moving import AUTOMATIC, DEPLOY, go_live
from circuit_script.releases.store import NewRelease, ReleaseRow, find_release, put_release
from tests.road import Road, open_road

BEAT = "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, %s, 1, now() + interval '1 minute')"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


@pytest.fixture
def steps() -> Steps:
    return Steps(Console(quiet=True))


async def put(connection: Connection, digest: str) -> ReleaseRow:
    spec = HandlerSpec("score", (("Contact", "afterInsert"),))
    return await put_release(connection, NewRelease(digest, b"x", (spec,), None, "anna", "", "", {"pytest": 0}))


async def worker(road: Road, host: str) -> UUID:
    found = uuid7()
    await road.run(BEAT, found, f"{host} abc 1")
    return found


async def test_without_a_worker_nobody_is_waited_for(road: Road, steps: Steps) -> None:
    async with road.pool.connection() as connection:
        with steps.step("warm") as step:
            assert await warm(InDatabase(connection), await put(connection, "a"), 5, step) == NOBODY


async def test_it_is_ready_when_every_worker_is(road: Road, steps: Steps) -> None:
    one, two = await worker(road, "one"), await worker(road, "two")
    async with road.pool.connection() as connection:
        row = await put(connection, "a")
        for each in (one, two):
            await moving.tell_state(connection, row.id, each, "ready")
        with steps.step("warm") as step:
            assert await warm(InDatabase(connection), row, 5, step) == "ready on 2 workers"


async def test_who_is_missing_is_named_when_time_is_up(road: Road, steps: Steps) -> None:
    one, _ = await worker(road, "one"), await worker(road, "two")
    async with road.pool.connection() as connection:
        row = await put(connection, "a")
        await moving.tell_state(connection, row.id, one, "ready")
        with pytest.raises(DeployRefused, match=r"1 of 2 workers; missing: two"), steps.step("warm") as step:
            await warm(InDatabase(connection), row, 0.3, step)
    assert [each["outcome"] for each in steps.told] == ["refused"]


async def test_one_that_cannot_prepare_it_says_why_and_nothing_is_waited_for(road: Road, steps: Steps) -> None:
    one = await worker(road, "one")
    async with road.pool.connection() as connection, road.pool.connection() as another:
        row = await put(connection, "a")
        with steps.step("warm") as step:
            waiting = asyncio.create_task(warm(InDatabase(connection), row, 30, step))
            await road.until("SELECT wanted_at IS NOT NULL FROM circuit.releases WHERE id = %s", [True], row.id)
            await moving.tell_state(another, row.id, one, "failed", "app/a.py:1: no such package.")
            with pytest.raises(DeployRefused, match=r"one .* cannot run it: app/a\.py:1: no such package\. Mend"):
                await waiting


async def test_a_deploy_whose_place_later_ones_have_taken_ends_at_once_and_names_them(road: Road, steps: Steps) -> None:
    await worker(road, "one")
    async with road.pool.connection() as connection, road.pool.connection() as another:
        row = await put(connection, "a")
        with steps.step("warm") as step:
            waiting = asyncio.create_task(warm(InDatabase(connection), row, 30, step))
            await road.until("SELECT wanted_at IS NOT NULL FROM circuit.releases WHERE id = %s", [True], row.id)
            for digest in ("b", "c"):
                await moving.warm_up(another, await put(another, digest))
            with pytest.raises(DeployRefused, match=r"make v1\.0\.2 and v1\.0\.1 ready") as caught:
                await asyncio.wait_for(waiting, 20)
    assert "deploy --quick. v1.0.0 is kept" in caught.value.cure


async def test_a_move_of_somebody_else_ends_the_watch_and_is_told(road: Road, steps: Steps) -> None:
    async with road.pool.connection() as connection:
        first, second = await put(connection, "a"), await put(connection, "b")
        await go_live(connection, first, kind=DEPLOY, by="anna")
        move = await go_live(connection, second, kind=DEPLOY, by="anna", watch=timedelta(minutes=10))
        await go_live(connection, first, kind=AUTOMATIC, by="the watch", reason="too many errors")
        with steps.step("watch") as step:
            watched = await watch(InDatabase(connection), move, step)
    assert watched.rolled_back
    assert watched.next is not None
    assert watched.next.reason == "too many errors"


CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'circuit-script deploy'"


async def test_a_watch_goes_on_when_the_database_has_restarted(
    road: Road, steps: Steps, database: str, tmp_path: Path
) -> None:
    settings = Settings(folder=tmp_path, database_url=database)
    async with road.pool.connection() as connection:
        first, second = await put(connection, "a"), await put(connection, "b")
        await go_live(connection, first, kind=DEPLOY, by="anna")
        move = await go_live(connection, second, kind=DEPLOY, by="anna", watch=timedelta(minutes=10))
        with steps.step("watch") as step:
            watching = asyncio.create_task(
                asyncio.to_thread(
                    through_restarts,
                    lambda: do(settings, "deploy", lambda own: watch(InDatabase(own), move, step)),
                    step,
                )
            )
            await road.until(CUT, [1])
            await go_live(connection, first, kind=AUTOMATIC, by="the watch", reason="too many errors")
            assert (await asyncio.wait_for(watching, 20)).rolled_back


async def test_a_database_that_stays_away_is_told(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deploy_watch, "RESTART", 0.0)
    settings = Settings(folder=tmp_path, database_url="postgresql://anna:x@127.0.0.1:1/app")
    with pytest.raises(DatabaseUnavailable), steps.step("watch") as step:
        await asyncio.to_thread(through_restarts, lambda: do(settings, "deploy", live_release), step)


async def test_a_move_whose_answer_was_lost_is_found_and_no_other(road: Road) -> None:
    async with road.pool.connection() as connection:
        first, second = await put(connection, "a"), await put(connection, "b")
        assert await moved(InDatabase(connection), first, 0) is None
        began = await go_live(connection, first, kind=DEPLOY, by="anna")
        assert await moved(InDatabase(connection), first, 0) == began
        assert await moved(InDatabase(connection), second, 0) is None, "somebody was quicker"
        assert await moved(InDatabase(connection), first, began.id) is None


async def test_what_was_live_when_a_deploy_began_may_be_so_no_more(road: Road) -> None:
    async with road.pool.connection() as connection:
        first, second = await put(connection, "a"), await put(connection, "b")
        await go_live(connection, first, kind=DEPLOY, by="anna")
        await check_still_live(InDatabase(connection), first)
        await go_live(connection, second, kind=DEPLOY, by="bob")
        with pytest.raises(DeployRefused, match=r"Meanwhile v1\.0\.1 went live in the place of v1\.0\.0") as caught:
            await check_still_live(InDatabase(connection), first)
        assert "deploy --quick" in caught.value.cure


async def test_what_is_live_is_found_and_a_report_may_be_renewed(road: Road) -> None:
    async with road.pool.connection() as connection:
        assert await live_release(connection) is None
        row = await put(connection, "a")
        await go_live(connection, row, kind=DEPLOY, by="anna")
        live = await live_release(connection)
        assert live is not None
        assert live.id == row.id
        await note_validated(connection, row, {"pytest": 0, "deploy": {"validated_at": "now"}})
        assert (await find_release(connection, "v1.0.0")).report["deploy"] == {"validated_at": "now"}


@pytest.mark.parametrize("url", ["postgresql://anna:x@127.0.0.1:1/app", "postgres//anna:x@host"])
def test_an_error_names_the_variable_of_the_environment_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql:///ours")
    monkeypatch.setenv("PRODUCTION_DATABASE_URL", url)
    (tmp_path / "circuit.toml").write_text('[env.production]\ndatabase_env = "PRODUCTION_DATABASE_URL"\n')
    settings = settings_in(load_settings(tmp_path), "production")
    with pytest.raises((DatabaseUnavailable, ConfigError), match="PRODUCTION_DATABASE_URL") as caught:
        do(settings, "deploy", live_release)
    assert " DATABASE_URL" not in str(caught.value)


def test_a_database_without_our_tables_says_how_it_gets_them(empty_database: str, tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path, database_url=empty_database)
    with pytest.raises(DatabaseUnavailable, match="circuit-script migrate"):
        do(settings, "deploy", live_release)
