import asyncio
from contextlib import AsyncExitStack

import pytest

from circuit_script.connectors.pace import CAUTIOUS, MustWait, Pace, Told


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


async def request(pace, told=None, patience=0.0):
    async with pace.turn("acme", patience) as turn:
        turn.told = told


async def test_no_more_leave_in_a_window_than_it_has():
    clock = Clock()
    pace = Pace(3, 10.0, clock=clock)
    for left in (2, 1, 0):
        await request(pace, Told(left=left))
        clock.now += 1
    with pytest.raises(MustWait) as caught:
        await request(pace)
    assert caught.value.seconds == pytest.approx(7.0)  # the first ended three seconds ago
    clock.now += 7
    await request(pace, Told(left=0))


async def test_what_others_have_used_counts():
    pace = Pace(100, 10.0, clock=Clock())
    await request(pace, Told(left=2))
    await request(pace, Told(left=1))
    await request(pace, Told(left=0))
    with pytest.raises(MustWait):
        await request(pace)


async def test_before_the_first_answer_few_are_under_way():
    pace = Pace(100, 10.0)
    async with asyncio.TaskGroup() as group:
        gate = asyncio.Event()

        async def hold():
            async with pace.turn("acme", 5.0) as turn:
                await gate.wait()
                turn.told = Told(left=50)

        for _ in range(CAUTIOUS + 5):
            group.create_task(hold())
        await asyncio.sleep(0)
        assert pace.wait("acme") > 0
        gate.set()
    assert pace.wait("acme") == 0


async def test_the_vendors_own_numbers_count_and_its_wish_to_be_left_alone():
    clock = Clock()
    pace = Pace(100, 10.0, clock=clock)
    await request(pace, Told(calls=2, seconds=4.0, left=1))
    await request(pace, Told(left=0))
    assert pace.wait("acme") == pytest.approx(4.0)
    clock.now += 4
    await request(pace, Told(left=1, pause=60.0))
    assert pace.wait("acme") == pytest.approx(60.0)


async def test_accounts_do_not_wait_for_each_other():
    pace = Pace(1, 10.0, clock=Clock())
    await request(pace, Told(left=0))
    assert pace.wait("acme") > 0
    assert pace.wait("birch") == 0


async def together(pace, *lefts):
    """Requests that are under way at once, and end in this order."""
    async with AsyncExitStack() as stack:
        for left in reversed(lefts):
            (await stack.enter_async_context(pace.turn("acme", 0.0))).told = Told(left=left)


@pytest.mark.parametrize("lefts", [range(49, -1, -1), range(50), [*range(1, 50, 2), *range(0, 50, 2)]])
async def test_those_that_were_under_way_together_do_not_count_twice_however_their_answers_come(lefts):
    pace = Pace(100, 10.0, clock=Clock())
    await request(pace, Told(left=99))
    await together(pace, *(each + 49 for each in lefts))
    assert pace.wait("acme") == 0
    await together(pace, *range(48, -1, -1))
    assert pace.wait("acme") > 0


async def test_what_others_use_meanwhile_counts_in_whatever_order_answers_come():
    pace = Pace(100, 10.0, clock=Clock())
    await request(pace, Told(left=99))
    await together(pace, 1, 97, 0)  # between the first and the second another one sent ninety-five
    assert pace.wait("acme") > 0


async def test_who_is_not_alone_keeps_a_distance_from_the_limit():
    pace = Pace(100, 10.0, clock=Clock())
    await request(pace, Told(left=3))  # others have sent ninety-six, and may send more
    await together(pace, 2, 1)
    assert pace.wait("acme") > 0


async def test_an_answer_that_says_nothing_may_have_come_behind_the_one_that_does():
    pace = Pace(100, 10.0, clock=Clock())
    await request(pace, Told(left=3))
    async with pace.turn("acme", 0.0) as turn:
        turn.told = Told(left=1)
        await request(pace)
    assert pace.wait("acme") > 0
