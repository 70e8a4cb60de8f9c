"""The line in front of the places: bounded, fair, and without a place that is lost."""

from __future__ import annotations

import asyncio

import pytest

from circuit_script.endpoints.line import LATELY, Line, LineFull, Shared


async def waiting(line: Line, tenant: str, seconds: float = 10.0, shared: Shared | None = None) -> asyncio.Task[None]:
    task = asyncio.create_task(line.enter(tenant, seconds, shared))
    for _ in range(3):  # turns of the loop, in which it gets as far as it can
        await asyncio.sleep(0)
    return task


async def test_who_finds_a_free_place_does_not_wait() -> None:
    line = Line(2)
    await line.enter("north", 1)
    await line.enter("north", 1)
    assert line.waiting == 0


async def test_tenants_take_turns_however_many_calls_one_of_them_makes() -> None:
    line = Line(1)
    await line.enter("busy", 1)
    order: list[str] = []
    tasks = []
    for tenant in ("busy", "busy", "busy", "quiet"):
        task = await waiting(line, tenant)
        task.add_done_callback(lambda _, tenant=tenant: order.append(tenant))
        tasks.append(task)
    for tenant in ("busy", "busy", "quiet", "busy"):
        line.leave(tenant)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["busy", "quiet", "busy", "busy"]


async def test_a_tenant_leaves_one_place_to_others_that_wait() -> None:
    line = Line(3)
    for tenant in ("busy", "busy", "quiet"):
        await line.enter(tenant, 1)
    busy, quiet = await waiting(line, "busy"), await waiting(line, "quiet")
    line.leave("quiet")
    await quiet
    assert not busy.done()
    line.leave("busy")
    await busy


async def test_the_last_place_is_kept_for_a_tenant_that_called_lately_though_it_does_not_wait() -> None:
    now = 0.0
    line = Line(3, clock=lambda: now)
    await line.enter("quiet", 1)
    line.leave("quiet")
    for _ in range(2):
        await line.enter("busy", 1)
    third = await waiting(line, "busy")
    assert not third.done()
    await asyncio.wait_for(line.enter("quiet", 60), 5)
    line.leave("quiet")
    assert not third.done()
    now = LATELY + 1
    fourth = await waiting(line, "busy")
    assert third.done(), "it is alone by now"
    assert not fourth.done()
    fourth.cancel()


async def test_a_tenant_that_is_alone_has_all_places_and_one_that_comes_gets_the_next() -> None:
    line = Line(3)
    for _ in range(3):
        await asyncio.wait_for(line.enter("busy", 60), 5)
    busy, quiet = await waiting(line, "busy"), await waiting(line, "quiet")
    line.leave("busy")
    await asyncio.wait_for(quiet, 5)
    line.leave("quiet")
    assert not (await waiting(line, "busy")).done()
    assert not busy.done()


async def test_a_third_tenant_does_not_let_the_second_be_forgotten() -> None:
    line = Line(2)
    for tenant in ("one", "two", "three"):
        await line.enter(tenant, 1)
        line.leave(tenant)
    await line.enter("three", 1)
    assert not (await waiting(line, "three")).done()


async def test_over_the_bound_the_newest_of_the_tenant_with_most_is_refused() -> None:
    line = Line(1, most=3)
    await line.enter("busy", 1)
    first, second, third = [await waiting(line, "busy") for _ in range(3)]
    with pytest.raises(LineFull):
        await line.enter("busy", 1)
    quiet = await waiting(line, "quiet")
    with pytest.raises(LineFull):
        await third
    assert not first.done()
    assert not second.done()
    for task in (first, second, quiet):
        task.cancel()


async def test_a_place_that_came_too_late_goes_to_the_next() -> None:
    line = Line(1)
    await line.enter("north", 1)
    with pytest.raises(TimeoutError):
        await line.enter("north", 0.001)
    cancelled, patient = await waiting(line, "north"), await waiting(line, "north")
    line.leave("north")  # to the first, which is cancelled in the same moment
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.wait_for(patient, 5)
    assert line.waiting == 0
    line.leave("north")
    await asyncio.wait_for(line.enter("south", 1), 5)


async def test_calls_that_share_a_child_take_one_place_together() -> None:
    line, chat = Line(3), Shared("chat", 3)
    for _ in range(3):
        await line.enter("north", 1, chat)
    for _ in range(2):
        await asyncio.wait_for(line.enter("south", 60), 5)
    late = [await waiting(line, "north", shared=chat) for _ in range(4)]
    assert line.waiting == 4
    line.leave("south")
    await asyncio.wait_for(asyncio.gather(*late[:3]), 5)
    assert line.waiting == 1, "the place was for three"
    line.leave("north", chat)
    await asyncio.wait_for(late[3], 5)
    assert line.waiting == 0


async def test_a_seat_in_a_place_is_for_its_own_tenant_and_endpoint() -> None:
    line, chat = Line(1), Shared("chat", 3)
    await line.enter("north", 1, chat)
    mine = await waiting(line, "north", shared=chat)
    assert mine.done()
    others = [await waiting(line, "south", shared=chat), await waiting(line, "north", shared=Shared("other", 3))]
    others.append(await waiting(line, "north"))
    assert line.waiting == 3
    line.leave("north", chat)
    assert line.waiting == 3
    line.leave("north", chat)
    await asyncio.wait_for(others[0], 5)
    assert line.waiting == 2
    for each in others[1:]:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    line.leave("south", chat)
    await line.enter("north", 1)


async def test_no_further_seat_keeps_a_place_for_which_another_tenant_waits() -> None:
    line, chat = Line(1), Shared("chat", 3)
    await line.enter("north", 1, chat)
    await line.enter("north", 1, chat)
    south = await waiting(line, "south", shared=chat)
    third, fourth = [await waiting(line, "north", shared=chat) for _ in range(2)]
    line.leave("north", chat)
    assert not third.done(), "south is next"

    line.leave("north", chat)

    await asyncio.wait_for(south, 5)
    late = await waiting(line, "south", shared=chat)
    assert not late.done(), "north is next"
    line.leave("south", chat)
    await asyncio.wait_for(asyncio.gather(third, fourth), 5)
    assert not late.done()
    for _ in range(2):
        line.leave("north", chat)
    await asyncio.wait_for(late, 5)


async def test_a_seat_is_free_for_all_that_one_waits_who_may_not_have_a_place() -> None:
    line, chat = Line(2), Shared("chat", 3)
    await line.enter("south", 1)
    await line.enter("north", 1, chat)
    greedy = await waiting(line, "south")  # it has all places but one

    await asyncio.wait_for(line.enter("north", 60, chat), 5)

    assert not greedy.done()
    greedy.cancel()


async def test_seats_are_free_again_when_who_was_next_gives_up() -> None:
    line, chat = Line(1), Shared("chat", 3)
    await line.enter("north", 1, chat)
    south, mine = await waiting(line, "south"), await waiting(line, "north", shared=chat)
    assert not mine.done()

    south.cancel()

    await asyncio.wait_for(mine, 5)


async def test_a_seat_that_nobody_waits_for_any_more_is_free_again() -> None:
    line, chat = Line(1), Shared("chat", 2)
    await line.enter("north", 1)
    gone, stays = [await waiting(line, "north", shared=chat) for _ in range(2)]
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    line.leave("north")
    await asyncio.wait_for(stays, 5)
    await asyncio.wait_for(line.enter("north", 1, chat), 5)
    assert not (await waiting(line, "north", shared=chat)).done()
