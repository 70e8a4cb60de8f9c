"""What is live and how that changes: one transaction, and never two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.execution.timing import Schedule
from circuit_script.releases import moving
from circuit_script.releases.moving import Move, go_live, hosts_of, last_started, moves, previous, warm_up
from circuit_script.releases.store import NewRelease, ReleaseRow, put_release
from tests.road import Road, contact, open_road

SCORE = HandlerSpec("score", (("Contact", "afterInsert"),))
OTHER = HandlerSpec("other", (("Contact", "afterUpdate"), ("Contact", "afterUpdate")))
NIGHTLY = HandlerSpec("nightly", (), job=JobSpec("scheduled", schedule=Schedule(cron="0 3 * * *", tenants=None)))


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def put(road: Road, digest: str, *handlers: HandlerSpec) -> ReleaseRow:
    new = NewRelease(digest, b"x", handlers or (SCORE,), None, "anna", "", "", {})
    async with road.pool.connection() as connection:
        return await put_release(connection, new)


async def move(road: Road, row: ReleaseRow, kind: str = "deploy", expected: int | None = None, **more: object) -> Move:
    async with road.pool.connection() as connection:
        return await go_live(connection, row, kind=kind, by="anna", expected=expected, **more)  # type: ignore[arg-type]  # a test's own


async def wanted(road: Road) -> tuple[int | None, bool, list[int]]:
    async with road.pool.connection() as connection:
        found = await moving.wanted(connection)
    return found.live, found.deployed, list(found.warm)


async def test_a_move_changes_what_is_live_its_routes_and_its_schedules_at_once(road: Road) -> None:
    first, second = await put(road, "a", SCORE, NIGHTLY), await put(road, "b", OTHER)
    done = await move(road, first, reason="the first", tenants=["acme"])
    assert (done.release, done.before, done.kind, done.by, done.reason) == (
        first.id,
        None,
        "deploy",
        "anna",
        "the first",
    )
    assert (done.version, done.before_version, done.watch_until) == ("v1.0.0", None, None)
    await road.take_in(contact("c1"))
    assert await road.rows("SELECT h.name FROM circuit.queue q JOIN circuit.handlers h ON h.id = q.handler") == [
        "score"
    ]
    assert await road.rows("SELECT handler, tenant FROM circuit.schedule_tenants") == [("nightly", "acme")]

    done = await move(road, second)
    assert (done.before, done.before_version) == (first.id, "v1.0.0")
    routes = "SELECT r.object, r.event, h.name FROM circuit.routes r JOIN circuit.handlers h ON h.id = r.handler"
    assert await road.rows(routes) == [("Contact", "afterUpdate", "other")]
    assert await road.rows("SELECT count(*) FROM circuit.schedules") == [0]
    assert await road.rows("SELECT release FROM circuit.live") == [second.id]


async def test_schedules_keep_their_tenants_and_moments_over_a_move(road: Road) -> None:
    first, second = await put(road, "a", NIGHTLY), await put(road, "b", NIGHTLY, SCORE)
    await move(road, first, tenants=["acme", "globex"])
    query = "SELECT handler, tenant, next_at FROM circuit.schedule_tenants ORDER BY 2"
    before = await road.rows(query)
    await move(road, second)
    assert await road.rows(query) == before
    assert len(before) == 2


async def test_of_two_first_deploys_one_goes_live_and_the_other_hears_of_it(road: Road) -> None:
    first, second = await put(road, "a"), await put(road, "b")
    ends = await asyncio.gather(
        *(move(road, row, expected=moving.NOTHING) for row in (first, second)), return_exceptions=True
    )
    refused = [each for each in ends if isinstance(each, ReleaseRefused)]
    (done,) = [each for each in ends if isinstance(each, Move)]
    assert [each.detail for each in refused] == [f"Release {done.release} went live meanwhile."]
    assert await road.rows("SELECT release FROM circuit.live") == [done.release]
    assert await road.rows("SELECT count(*) FROM circuit.moves") == [1]


async def test_a_first_deploy_is_not_refused_for_a_worker_that_began_with_its_folder_meanwhile(road: Road) -> None:
    await road.live(OTHER)
    first = await put(road, "a")
    await move(road, first, expected=moving.NOTHING)
    assert await road.rows("SELECT release FROM circuit.live") == [first.id]


async def test_a_move_is_refused_where_another_has_come_between(road: Road) -> None:
    first, second, third = await put(road, "a"), await put(road, "b"), await put(road, "c")
    await move(road, first)
    await move(road, second, expected=first.id)
    with pytest.raises(ReleaseRefused, match=f"Release {second.id} went live meanwhile"):
        await move(road, third, expected=first.id)
    assert await road.rows("SELECT release FROM circuit.live") == [second.id]


async def test_two_deploys_at_once_are_one_and_a_refusal(road: Road) -> None:
    first, *others = [await put(road, name, SCORE, OTHER) for name in "abcdef"]
    await move(road, first)
    found = await asyncio.gather(*(move(road, each, expected=first.id) for each in others), return_exceptions=True)
    done = [each for each in found if isinstance(each, Move)]
    assert len(done) == 1
    assert all(isinstance(each, ReleaseRefused) for each in found if each not in done)
    assert await road.rows("SELECT release FROM circuit.live") == [done[0].release]
    assert await road.rows("SELECT count(*) FROM circuit.routes") == [2]


async def test_a_deploy_against_a_rollback_leaves_one_of_them_and_a_whole_history(road: Road) -> None:
    first, second, third = await put(road, "a"), await put(road, "b"), await put(road, "c", OTHER)
    await move(road, first)
    await move(road, second)
    found = await asyncio.gather(
        move(road, first, "rollback", expected=second.id),
        move(road, third, expected=second.id),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Move) for each in found) == 1
    async with road.pool.connection() as connection:
        history = await moves(connection)
    assert [each.before for each in history] == [second.id, first.id, None]
    assert await road.rows("SELECT release FROM circuit.live") == [history[0].release]
    routed = await road.rows("SELECT event FROM circuit.routes")
    assert routed == ["afterUpdate" if history[0].release == third.id else "afterInsert"]


async def test_what_is_live_already_is_no_move_but_for_what_ran_from_its_folder(road: Road) -> None:
    row = await put(road, "a")
    await road.run("INSERT INTO circuit.live (release) VALUES (%s)", row.id)
    assert (await move(road, row)).before is None
    with pytest.raises(ReleaseRefused, match="is live already"):
        await move(road, row)


async def test_the_release_before_is_what_was_live_before_the_last_move(road: Road) -> None:
    async with road.pool.connection() as connection:
        with pytest.raises(ReleaseUnknown, match="Nothing was deployed yet"):
            await previous(connection)
        first, second = await put(road, "a"), await put(road, "b")
        await move(road, first)
        with pytest.raises(ReleaseUnknown, match="Nothing was live before"):
            await previous(connection)
        await move(road, second)
        assert (await previous(connection)).id == first.id
        await move(road, first, "rollback")
        assert (await previous(connection)).id == second.id


async def test_a_move_that_cannot_be_made_changes_nothing(road: Road) -> None:
    await move(road, await put(road, "a"))
    async with road.pool.connection() as connection:
        with pytest.raises(ReleaseUnknown):
            await go_live(connection, 999, kind="deploy", by="anna")
        assert len(await moves(connection)) == 1
    assert await road.rows("SELECT count(*) FROM circuit.routes") == [1]


async def test_workers_are_to_have_ready_what_was_live_before_and_what_was_asked_for_last(road: Road) -> None:
    assert await wanted(road) == (None, False, [])
    a, b, c, d = [await put(road, name) for name in "abcd"]
    async with road.pool.connection() as connection:
        await warm_up(connection, a)
        assert await wanted(road) == (None, False, [a.id])
        await move(road, a)
        assert await wanted(road) == (a.id, True, [])
        await warm_up(connection, b)
        await warm_up(connection, c)
        assert await wanted(road) == (a.id, True, [c.id, b.id])
        await move(road, b)
        assert await wanted(road) == (b.id, True, [a.id, c.id])
        await warm_up(connection, d)
        assert await wanted(road) == (b.id, True, [a.id, d.id])


async def test_what_has_no_files_is_not_asked_for(road: Road) -> None:
    row = await put(road, "a")
    await road.run("DELETE FROM circuit.release_sources")
    async with road.pool.connection() as connection:
        with pytest.raises(ReleaseRefused, match="were not kept"):
            await warm_up(connection, row)


async def test_each_worker_that_lives_says_how_far_it_is(road: Road) -> None:
    row = await put(road, "a")
    here, there, gone = uuid7(), uuid7(), uuid7()
    beat = "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, %s, 1, now() + %s)"
    for worker, host, seconds in ((here, "one abc 1", 60), (there, "two abc 1", 60), (gone, "old abc 1", -1)):
        await road.run(beat, worker, host, timedelta(seconds=seconds))
    async with road.pool.connection() as connection:
        await moving.tell_state(connection, row.id, here, "ready")
        await moving.tell_state(connection, row.id, gone, "ready")
        first, second = await hosts_of(connection, row)
        assert (first.worker, first.host, first.state, first.detail) == (here, "one", "ready", "")
        assert (second.worker, second.host, second.state) == (there, "two", "preparing")

        await moving.tell_state(connection, row.id, there, "failed", "app.py:1: no module")
        assert [each.state for each in await hosts_of(connection, row.id)] == ["ready", "failed"]
        await warm_up(connection, row)
        assert [each.state for each in await hosts_of(connection, row.id)] == ["ready", "preparing"], "it tries again"
        await moving.keep_states(connection, here, [])
        assert [each.state for each in await hosts_of(connection, row.id)] == ["preparing", "preparing"]


async def test_the_last_start_of_a_release_after_a_moment_is_told(road: Road) -> None:
    row, since = await put(road, "a"), datetime.now(UTC)
    insert = (
        "INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, started_at,"
        " usage) VALUES (circuit.uuid_floor(%s), 'acme', %s, 1, 'Contact', 'x', 1, 'succeeded', %s, '{}')"
    )
    async with road.pool.connection() as connection:
        assert await last_started(connection, row, since) is None
        for seconds, release in ((-2, row.id), (1, row.id), (2, row.id), (3, row.id + 1)):
            moment = since + timedelta(seconds=seconds)
            await road.run(insert, moment, release, moment)
        assert await last_started(connection, row.id, since) == since + timedelta(seconds=2)


async def test_a_watch_ends_when_another_move_comes(road: Road) -> None:
    first, second = await put(road, "a"), await put(road, "b")
    done = await move(road, first, watch=timedelta(minutes=10))
    assert done.watch_until is not None
    assert timedelta(minutes=9) < done.watch_until - done.at < timedelta(minutes=11)
    await move(road, second)
    async with road.pool.connection() as connection:
        assert [each.watched for each in await moves(connection)] == [None, "another move came"]


async def test_what_a_worker_says_before_its_first_heartbeat_is_not_taken_for_that_of_one_that_is_gone(
    road: Road,
) -> None:
    row = await put(road, "a")
    here, other = uuid7(), uuid7()
    async with road.pool.connection() as connection:
        await moving.tell_state(connection, row.id, here, "ready")
        await moving.keep_states(connection, other, [])
        await road.run(
            "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, 'one', 1, 'infinity')", here
        )
        assert [each.state for each in await hosts_of(connection, row.id)] == ["ready"]
        await road.run("DELETE FROM circuit.workers")
        await road.run("UPDATE circuit.release_hosts SET since = now() - interval '2 hours'")
        await moving.keep_states(connection, other, [])
    assert await road.rows("SELECT count(*) FROM circuit.release_hosts") == [0]
