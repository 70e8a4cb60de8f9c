"""The watch over a release that has just gone live: what takes it back, what does not, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from circuit_script.clock import uuid7
from circuit_script.errors import ReleaseRefused
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import watch
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import Move, go_live, moves, tell_state
from circuit_script.releases.store import NewRelease, ReleaseRow, put_release
from circuit_script.releases.watch import is_worse
from circuit_script.wiring.guardian import read_findings
from circuit_script.wiring.watching import ReleaseWatch
from tests.road import Road, open_road

SCORE = HandlerSpec("score", (("Contact", "afterInsert"),))
RAN = """
WITH ran AS (
    INSERT INTO circuit.executions (id, tenant, release, handler, object, event, records, status, started_at, usage)
    SELECT (left(circuit.uuid_floor(%(at)s)::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 'acme', %(release)s, 1,
           'Contact', 'afterInsert', 1, %(status)s, %(at)s, '{}' FROM generate_series(%(low)s, %(low)s + %(n)s - 1) n
    RETURNING id)
INSERT INTO circuit.outcomes (delivery, ordinal, handler, execution, tenant, status, reason)
SELECT CASE WHEN %(one)s THEN circuit.uuid_floor(%(at)s) ELSE id END, 0, 1, id, 'acme',
       CASE WHEN %(status)s = 'succeeded' THEN 'succeeded' ELSE 'retry' END, '' FROM ran
"""


class Team:
    def __init__(self, road: Road) -> None:
        self.road = road
        self.used = 1

    async def put(self, digest: str) -> ReleaseRow:
        async with self.road.pool.connection() as connection:
            return await put_release(connection, NewRelease(digest, b"x", [SCORE], None, "anna", "", "", {}))

    async def move(self, row: ReleaseRow, minutes: float | None = 10) -> Move:
        span = None if minutes is None else timedelta(minutes=minutes)
        async with self.road.pool.connection() as connection:
            return await go_live(connection, row, kind="deploy", by="anna", watch=span)

    async def ran(self, row: ReleaseRow, at: datetime, n: int, status: str = "succeeded", one: bool = False) -> None:
        """So many executions, of an event each or all of one."""
        values = {"at": at, "release": row.id, "n": n, "status": status, "low": self.used, "one": one}
        self.used += n
        async with self.road.pool.connection() as connection:
            await connection.execute(RAN, values)

    async def look(self) -> list[Move]:
        """One look, and the moves after it."""
        await ReleaseWatch(self.road.pool, every=0.0).tick()
        async with self.road.pool.connection() as connection:
            return await moves(connection)


@pytest.fixture
async def team(database: str) -> AsyncIterator[Team]:
    async with open_road(database) as road:
        yield Team(road)


async def two(team: Team, minutes: float | None = 10) -> tuple[ReleaseRow, ReleaseRow, Move]:
    good, bad = await team.put("good"), await team.put("bad")
    await team.move(good, None)
    return good, bad, await team.move(bad, minutes)


SECOND = timedelta(seconds=1)


async def test_more_errors_than_before_take_a_release_back_and_it_is_told(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(good, move.at - 60 * SECOND, 2000)
    await team.ran(good, move.at - 59 * SECOND, 2, "failed")
    await team.ran(bad, move.at + SECOND, 90)
    await team.ran(bad, move.at + SECOND, 10, "failed")

    back, watched, _ = await team.look()
    assert (back.kind, back.by, back.release, back.before) == ("automatic rollback", "the watch", good.id, bad.id)
    assert "10 of 100 executions of v1.0.1 failed (10.00%); of v1.0.0 before it 2 of 2,002 (0.10%)" in back.reason
    assert watched.watched == "rolled back"
    assert await team.road.rows("SELECT release FROM circuit.live") == [good.id]
    async with team.road.pool.connection() as connection:
        (finding,) = await read_findings(connection, 300.0)
    assert finding.severity == "critical"
    assert finding.what.startswith("v1.0.1 was rolled back to v1.0.0: 10 of 100")
    assert finding.next == "circuit-script effects --release v1.0.1"


async def test_a_release_that_fails_as_often_as_the_one_before_stays_and_passes(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(good, move.at - 60 * SECOND, 900)
    await team.ran(good, move.at - 60 * SECOND, 100, "failed")
    await team.ran(bad, move.at + SECOND, 88)
    await team.ran(bad, move.at + SECOND, 12, "partial")
    assert (await team.look())[0].watched is None
    await team.road.run("UPDATE circuit.moves SET watch_until = now() WHERE id = %s", move.id)
    assert (await team.look())[0].watched == "passed"
    assert await team.road.rows("SELECT release FROM circuit.live") == [bad.id]


async def test_one_event_that_fails_again_and_again_and_what_counts_as_no_error_take_nothing_back(team: Team) -> None:
    _, bad, move = await two(team)
    await team.ran(bad, move.at + SECOND, 5, "failed", one=True)
    await team.ran(bad, move.at + 2 * SECOND, 50, "held")
    await team.ran(bad, move.at + 2 * SECOND, 50, "deferred")
    assert (await team.look())[0].id == move.id


async def test_a_release_of_which_everything_fails_is_taken_back_at_its_third_error(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(bad, move.at + SECOND, 2, "breached")
    assert (await team.look())[0].id == move.id
    await team.ran(bad, move.at + SECOND, 1, "failed")
    assert (await team.look())[0].release == good.id


async def test_what_failed_before_the_move_or_of_another_release_says_nothing(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(bad, move.at - SECOND, 50, "failed")
    await team.ran(good, move.at + SECOND, 50, "failed")
    assert (await team.look())[0].id == move.id


async def test_only_one_worker_looks_at_a_time_and_nobody_where_nothing_is_watched(team: Team) -> None:
    async with team.road.pool.connection() as connection:
        assert await watch.claim(connection, 60.0) is None
        _, bad, move = await two(team)
        found = await watch.claim(connection, 60.0)
        assert found is not None
        assert (found.move, found.release, found.over) == (move.id, bad.id, False)
        assert await watch.claim(connection, 60.0) is None
        assert await watch.claim(connection, 0.0) is not None
        await team.road.run("UPDATE circuit.moves SET watched = 'passed'")
        assert await watch.claim(connection, 0.0) is None


async def test_who_moves_meanwhile_is_not_overruled(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(bad, move.at + SECOND, 50, "failed")
    async with team.road.pool.connection() as connection:
        watching = await watch.claim(connection, 0.0)
        assert watching is not None
        third = await team.put("third")
        await team.move(third, None)
        assert await watch.look(connection, watching) is None
        with pytest.raises(ReleaseRefused):
            await go_live(connection, good, kind="rollback", by="anna", expected=bad.id)
    assert await team.road.rows("SELECT release FROM circuit.live") == [third.id]


async def test_where_there_is_no_release_before_it_is_only_told(team: Team) -> None:
    first = await team.put("first")
    move = await team.move(first)
    await team.ran(first, move.at + SECOND, 50, "failed")
    assert "nothing was live before" in str((await team.look())[0].watched)
    async with team.road.pool.connection() as connection:
        (finding,) = await read_findings(connection, 300.0)
    assert "there is no release before" in finding.what


async def test_events_that_fail_again_and_again_are_counted_once_each(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(good, move.at - 60 * SECOND, 2000)
    await team.ran(bad, move.at + SECOND, 2970)
    for poison in range(3):
        await team.ran(bad, move.at + (2 + poison) * SECOND, 10, "failed", one=True)
    assert (await team.look())[0].id == move.id


async def test_nothing_is_taken_back_to_what_no_worker_can_run(team: Team) -> None:
    good, bad, move = await two(team)
    here = uuid7()
    await team.road.run(
        "INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, 'one', 1, now() + interval '1 minute')",
        here,
    )
    async with team.road.pool.connection() as connection:
        await tell_state(connection, good.id, here, "failed", "its files were not kept")
    await team.ran(bad, move.at + SECOND, 50, "failed")
    (latest, *_) = await team.look()
    assert latest.id == move.id
    assert "no worker can run v1.0.0: its files were not kept" in str(latest.watched)
    async with team.road.pool.connection() as connection:
        (finding,) = await read_findings(connection, 300.0)
    assert "no worker can run v1.0.0" in finding.what


async def test_a_release_that_was_taken_back_and_deployed_again_meanwhile_is_not_overruled(team: Team) -> None:
    good, bad, move = await two(team)
    await team.ran(bad, move.at + SECOND, 50, "failed")
    async with team.road.pool.connection() as connection:
        watching = await watch.claim(connection, 0.0)
        assert watching is not None
        await team.move(good, None)
        again = await team.move(bad)
        assert await watch.look(connection, watching) is None
        assert (await moves(connection))[0].id == again.id


async def test_one_event_whose_batch_is_halved_until_it_is_alone_takes_nothing_back(team: Team) -> None:
    _, bad, move = await two(team)
    await team.ran(bad, move.at + SECOND, 8, "failed")
    await team.road.run("DELETE FROM circuit.outcomes")  # as of what runs again in parts
    await team.ran(bad, move.at + SECOND, 8)
    await team.ran(bad, move.at + 2 * SECOND, 5, "failed", one=True)
    assert (await team.look())[0].id == move.id


@pytest.mark.parametrize(
    ("errors", "of", "old_errors", "old_of", "worse"),
    [
        (2, 2, 0, 0, False),  # too few to tell
        (3, 3, 0, 0, True),
        (3, 100, 0, 10_000, True),
        (3, 1_000, 0, 10_000, False),  # three where one is allowed: chance
        (8, 1_000, 0, 10_000, True),
        (300, 250_000, 0, 10_000, True),
        (255, 250_000, 0, 10_000, False),  # above the bound by what chance does
        (12, 100, 100, 1_000, False),
        (25, 100, 100, 1_000, True),
        (100, 100, 1_000, 1_000, False),
    ],
)
def test_worse_is_what_chance_would_hardly_do(errors: int, of: int, old_errors: int, old_of: int, worse: bool) -> None:
    assert is_worse(Counts(of, errors), Counts(old_of, old_errors)) is worse
