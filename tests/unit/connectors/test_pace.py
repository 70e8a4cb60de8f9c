import asyncio

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
