"""Shadows in the database: one at a time, each recording compared once, and who goes live at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.errors import ReleaseRefused
from circuit_script.events.recorder import Recorder
from circuit_script.events.recordings import Ended, Recording, packed, store
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.releases import shadows
from circuit_script.releases.moving import go_live, moves, tell_state
from circuit_script.releases.shadow_report import ShadowReport, comparison_of, report_of
from circuit_script.releases.shadows import DIFFERENT, INCOMPARABLE, SAME, Settled, Shadow
from circuit_script.releases.store import NewRelease, ReleaseRow, put_release, release_of
from circuit_script.wiring.shadow_run import ShadowParts
from circuit_script.wiring.shadowing import GONE, Shadowing, incomparable
from tests.road import Road, eventually, open_road

SCORE = HandlerSpec("score", (("Contact", "afterInsert"),))
GREET = HandlerSpec("greet", (("Contact", "afterInsert"),))
BEAT = """
INSERT INTO circuit.workers (id, host, pid, expires_at) VALUES (%s, 'one', 1, now() + interval '1 minute')
"""
LIVE = "SELECT release FROM circuit.live"


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def put(road: Road, digest: str, *handlers: HandlerSpec) -> ReleaseRow:
    async with road.pool.connection() as connection:
        new = NewRelease(digest, b"x", handlers or (SCORE,), None, "anna", "", "", {})
        return await put_release(connection, new)


async def beside(road: Road, **asked: Any) -> tuple[ReleaseRow, ReleaseRow, Shadow]:
    """What is live, a candidate, and its shadow."""
    live, candidate = await put(road, "a"), await put(road, "b")
    async with road.pool.connection() as connection:
        await go_live(connection, live, kind="deploy", by="anna")
        return live, candidate, await shadows.open_shadow(connection, candidate, by="anna", **asked)


async def record(road: Road, release: ReleaseRow, many: int, records: int = 1, handler: str = "score") -> list[UUID]:
    rows = [{"id": f"c{n}"} for n in range(records)]
    made = [
        Recording(uuid7(), release.id, "acme", handler, "Contact", "afterInsert", Ended("succeeded"), rows)
        for _ in range(many)
    ]
    async with road.pool.connection() as connection:
        await store(connection, [(each, packed(each, 100_000) or b"") for each in made])
    return [each.execution for each in made]


async def alive(road: Road) -> UUID:
    worker = uuid7()
    await road.run(BEAT, worker)
    return worker


async def claim(road: Road, shadow: Shadow, worker: UUID, limit: int = 10) -> list[UUID]:
    async with road.pool.connection() as connection:
        return await shadows.claim(connection, shadow, worker, limit)


async def settle(road: Road, shadow: Shadow, worker: UUID, execution: UUID, settled: Settled | None = None) -> bool:
    async with road.pool.connection() as connection:
        return await shadows.settle(connection, shadow, worker, execution, settled or Settled(SAME, live_ms=1.0))


async def report(road: Road, shadow: Shadow) -> ShadowReport:
    async with road.pool.connection() as connection:
        return await report_of(connection, shadow)


async def test_nothing_live_itself_and_a_second_one_are_refused(road: Road) -> None:
    row = await put(road, "a")
    async with road.pool.connection() as connection:
        with pytest.raises(ReleaseRefused, match="Nothing is live"):
            await shadows.open_shadow(connection, row, by="anna")
        await go_live(connection, row, kind="deploy", by="anna")
        with pytest.raises(ReleaseRefused, match="compared with itself"):
            await shadows.open_shadow(connection, row, by="anna")
        await shadows.open_shadow(connection, await put(road, "b"), by="anna")
        with pytest.raises(ReleaseRefused, match=r"v1\.0\.1 is compared already") as caught:
            await shadows.open_shadow(connection, await put(road, "c"), by="anna")
        assert "shadow stop" in caught.value.cure


async def test_workers_that_take_at_once_share_recordings_and_never_the_same(road: Road) -> None:
    live, candidate, shadow = await beside(road)
    made = await record(road, live, 40)
    await record(road, candidate, 3)  # of another release: nobody compares them
    workers = [await alive(road) for _ in range(4)]
    taken = await asyncio.gather(*(claim(road, shadow, each, 15) for each in workers))
    both = sorted(each for part in taken for each in part)
    assert len(both) == len(set(both))
    assert set(both) <= set(made)
    rest = await claim(road, shadow, await alive(road), 100)
    assert sorted([*both, *rest]) == sorted(made)
    assert await claim(road, shadow, await alive(road)) == []


async def test_what_a_worker_that_is_gone_had_taken_another_takes_and_only_one_counts(road: Road) -> None:
    live, _, shadow = await beside(road)
    (execution,) = await record(road, live, 1)
    gone, other = uuid7(), await alive(road)
    assert await claim(road, shadow, gone) == [execution]
    assert await claim(road, shadow, other) == [execution]
    assert not await settle(road, shadow, gone, execution, Settled(DIFFERENT, different=1))
    assert await settle(road, shadow, other, execution)
    assert not await settle(road, shadow, other, execution, Settled(DIFFERENT, different=1))
    assert await claim(road, shadow, await alive(road)) == []
    found = await report(road, shadow)
    assert (found.executions, found.same, found.different) == (1, 1, 0)


async def test_what_a_living_worker_has_taken_stays_its_own_until_it_gives_it_back(road: Road) -> None:
    live, _, shadow = await beside(road)
    (execution,) = await record(road, live, 1)
    one, two = await alive(road), await alive(road)
    assert await claim(road, shadow, one) == [execution]
    assert await claim(road, shadow, two) == []
    async with road.pool.connection() as connection:
        await shadows.give_back(connection, shadow, one)
    assert await claim(road, shadow, two) == [execution]


async def test_who_takes_long_is_not_raced_by_another_who_takes_as_long(road: Road) -> None:
    """Else each would take it from the other for ever, and none of them would count."""
    live, _, shadow = await beside(road)
    (execution,) = await record(road, live, 1)
    one, two = await alive(road), await alive(road)
    assert await claim(road, shadow, one) == [execution]
    await road.run("UPDATE circuit.comparisons SET taken_at = taken_at - interval '5 minutes'")
    assert await claim(road, shadow, two) == []
    assert await claim(road, shadow, one) == [execution]  # it asks again: it has lost what it had
    await road.run("UPDATE circuit.comparisons SET taken_at = taken_at - interval '1 hour'")
    assert await claim(road, shadow, two) == [execution]


async def test_the_report_counts_records_and_names_what_is_not_compared(road: Road) -> None:
    live, candidate = await put(road, "a", SCORE, GREET), await put(road, "b", SCORE, HandlerSpec("thank", ()))
    async with road.pool.connection() as connection:
        await go_live(connection, live, kind="deploy", by="anna")
        shadow = await shadows.open_shadow(connection, candidate, by="anna", promote_below=0.1, least=10)
    one, two, three = (await record(road, live, 1, 10))[0], *(await record(road, live, 2, 5))
    worker = await alive(road)
    await claim(road, shadow, worker)
    differs = ["c3", "Contact c3", "score", 78, 79]
    await settle(road, shadow, worker, one, Settled(DIFFERENT, 1, 10.0, 20.0, 0.5, 0.25, 3, 2, [differs]))
    await settle(road, shadow, worker, two, Settled(INCOMPARABLE, differences=[[None, "asked", "", "", "x"]]))
    found = await report(road, shadow)
    assert (found.executions, found.waiting, found.records) == (2, 1, 15)
    assert (found.same, found.different, found.incomparable) == (9, 1, 5)
    assert (found.only_there, found.only_live) == (["thank"], ["greet"])
    assert (found.live.p50, found.candidate.p50, found.live.cost, found.candidate.calls) == (10.0, 20.0, 0.5, 2)
    assert [(each.execution, each.record, each.field, each.live, each.candidate) for each in found.differences] == [
        (one, "c3", "score", 78, 79)
    ]
    assert found.unanswered[0].candidate == "x"
    assert "6 of 15 records are not the same (40.00%, allowed 10.00%)" in found.doubt
    async with road.pool.connection() as connection:
        assert await comparison_of(connection, shadow, three) == ("taken", [])
        assert await comparison_of(connection, shadow, uuid7()) is None


async def test_a_promotion_ends_the_shadow_and_moves_with_a_watch_or_does_neither(road: Road) -> None:
    live, candidate, shadow = await beside(road)
    other = await put(road, "c")
    async with road.pool.connection() as connection:
        await go_live(connection, other, kind="deploy", by="berta")
        with pytest.raises(ReleaseRefused, match="went live meanwhile"):
            await shadows.promote(connection, shadow, by="anna")
        assert await shadows.current(connection) is not None
        await go_live(connection, live, kind="rollback", by="berta")
        move = await shadows.promote(connection, shadow, by="anna", reason="the same", watch=timedelta(minutes=10))
        assert (move.release, move.before, move.kind, move.watch_until is None) == (
            candidate.id, live.id, "deploy", False,
        )  # fmt: skip
        with pytest.raises(ReleaseRefused, match="is closed"):
            await shadows.promote(connection, shadow, by="anna")
        last = await shadows.latest(connection)
    assert last is not None
    assert last.closed_why == "promoted"
    assert await road.rows(LIVE) == [candidate.id]


def service(road: Road, worker: UUID, folder: Path) -> Shadowing:
    settings = Settings(folder=folder)
    parts = ShadowParts(
        settings=settings,
        database=road.pool,
        governor=CircuitGovernor.of_settings(settings),
        rules=CalloutParts(),
        knows=lambda connector, target: True,
        declared=lambda connector, operation: None,
        home=lambda tenant, object_: "local",
        judgment=None,
    )
    return Shadowing(
        worker=worker,
        settings=settings,
        database=road.pool,
        recorder=Recorder(road.pool),
        parts=parts,
        check=lambda handlers: None,
    )


async def over(road: Road, same: int, **asked: Any) -> tuple[ReleaseRow, Shadow, UUID]:
    """A candidate whose time is up, with so many records that are the same, on a worker that has it ready."""
    live, candidate, shadow = await beside(road, span=timedelta(seconds=-60), **asked)
    worker = await alive(road)
    executions = await record(road, live, same)
    assert sorted(await claim(road, shadow, worker, same)) == sorted(executions)
    for each in executions:
        assert await settle(road, shadow, worker, each)
    async with road.pool.connection() as connection:
        await tell_state(connection, candidate.id, worker, "ready")
    return candidate, shadow, worker


async def ended(road: Road) -> Shadow:
    async with road.pool.connection() as connection:
        found = await shadows.latest(connection)
    assert found is not None
    return found


async def test_when_its_time_is_up_and_enough_was_the_same_it_goes_live_by_itself_and_once(
    road: Road, tmp_path: Path
) -> None:
    candidate, _, worker = await over(road, 3, promote_below=0.0, least=3)
    one, two = service(road, worker, tmp_path), service(road, uuid7(), tmp_path)
    for _ in range(2):  # it is asked for everywhere, and then moved
        await asyncio.gather(one.tick(), two.tick())
    assert await road.rows(LIVE) == [candidate.id]
    async with road.pool.connection() as connection:
        found = await moves(connection)
    assert [each.by for each in found] == ["the shadow of anna", "anna"]
    assert found[0].watch_until is not None
    assert (await ended(road)).closed_why == "promoted"


async def test_with_fewer_records_than_that_it_ends_and_says_why(road: Road, tmp_path: Path) -> None:
    candidate, shadow, worker = await over(road, 2, promote_below=0.0, least=3)
    await service(road, worker, tmp_path).tick()
    assert "2 records were compared, fewer than 3" in str((await ended(road)).closed_why)
    assert await road.rows(LIVE) == [shadow.against] != [candidate.id]


async def test_one_that_a_worker_cannot_run_is_not_promoted(road: Road, tmp_path: Path) -> None:
    candidate, shadow, worker = await over(road, 3, promote_below=0.0, least=3)
    shadowing = service(road, worker, tmp_path)
    await shadowing.tick()
    async with road.pool.connection() as connection:
        await tell_state(connection, candidate.id, worker, "failed", "app/a.py:1: no such package.")
    await shadowing.tick()
    assert "cannot run it: app/a.py:1: no such package." in str((await ended(road)).closed_why)
    assert await road.rows(LIVE) == [shadow.against]


async def test_one_whose_files_cannot_be_run_says_so_and_what_is_recorded_waits(road: Road, tmp_path: Path) -> None:
    live, _, shadow = await beside(road)
    await record(road, live, 2)
    shadowing = service(road, await alive(road), tmp_path)
    assert not await shadowing.tick()
    found = await report(road, await ended(road))
    assert "v1.0.1 cannot run" in found.shadow.note
    assert (found.executions, found.waiting) == (0, 2)
    assert found.shadow.closed is None
    assert shadowing._recorder.sampling == shadow.sample


async def test_another_release_that_goes_live_ends_it(road: Road, tmp_path: Path) -> None:
    await beside(road)
    async with road.pool.connection() as connection:
        await go_live(connection, await put(road, "c"), kind="deploy", by="berta")
    shadowing = service(road, await alive(road), tmp_path)
    await shadowing.tick()
    assert (await ended(road)).closed_why == "another release went live than v1.0.0"
    assert shadowing._recorder.sampling == 0.0


async def test_of_what_could_not_be_compared_every_record_counts(road: Road) -> None:
    """Whoever found no recording any more does not know how many they were; the others are not the same for that."""
    live, _, shadow = await beside(road)
    (execution,) = await record(road, live, 1, 50)
    worker = await alive(road)
    assert await claim(road, shadow, worker) == [execution]
    assert await settle(road, shadow, worker, execution, incomparable(GONE, public=True))
    found = await report(road, shadow)
    assert (found.records, found.same, found.incomparable) == (50, 0, 50)


async def test_what_differs_is_not_kept_of_somebody_who_was_forgotten_meanwhile(road: Road) -> None:
    live, _, shadow = await beside(road)
    one, other = await record(road, live, 2)
    worker = await alive(road)
    assert await claim(road, shadow, worker) == [one, other]
    anna = Settled(DIFFERENT, 1, differences=[["c0", "Contact c0", "email", "anna@example.com", ""]])
    async with road.pool.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM circuit.recordings WHERE execution = %s", [one])  # who forgets is at it
        settling = asyncio.create_task(settle(road, shadow, worker, one, anna))
        assert await settle(road, shadow, worker, other, anna)
        await eventually(partial(waits_for_a_lock, road), "it waits for who forgets")
    assert await settling
    kept = await road.rows("SELECT differences::text FROM circuit.comparisons ORDER BY execution")
    assert kept[0] == "[]"
    assert "anna@example.com" in kept[1]
    assert (await report(road, shadow)).different == 2


async def waits_for_a_lock(road: Road) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool((await road.rows(waiting))[0])


async def test_who_cannot_run_it_does_not_end_it_while_recordings_wait_for_those_who_can(
    road: Road, tmp_path: Path
) -> None:
    _, shadow, worker = await over(road, 3, promote_below=0.0, least=3)
    await record(road, await released(road, shadow.against), 1)
    await service(road, worker, tmp_path).tick()
    assert (await ended(road)).closed is None
    assert await road.rows(LIVE) == [shadow.against]


async def released(road: Road, release: int) -> ReleaseRow:
    async with road.pool.connection() as connection:
        return await release_of(connection, release)


async def test_what_was_left_out_of_one_shadow_is_not_counted_in_the_next(road: Road, tmp_path: Path) -> None:
    await beside(road, sample=0.000001)
    shadowing = service(road, await alive(road), tmp_path)
    await shadowing.tick()
    assert shadowing._recorder.begin(1) is None
    await shadowing.tick()
    async with road.pool.connection() as connection:
        first = await shadows.current(connection)
        assert first is not None
        assert first.skipped_sample == 1
        assert shadowing._recorder.begin(1) is None
        await shadows.close(connection, first, "stopped by anna")
        await shadows.open_shadow(connection, await put(road, "c"), by="anna")
    await shadowing.tick()
    assert (await ended(road)).skipped_sample == 0
