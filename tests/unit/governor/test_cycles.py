"""The loop breaker: what goes round in circles ends, and nothing else does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.governor import LimitExceeded, Limits, LoopFound, Meter
from circuit_script.governor.cycles import REPEATS, Cycles, request


@dataclass
class World:
    """An execution that calls; ``now`` is its clock."""

    records: int = 1
    repeats: int = REPEATS
    now: float = 0.0
    cycles: Cycles = field(init=False)

    def __post_init__(self) -> None:
        self.cycles = Cycles(self.repeats, self.records, lambda: self.now)

    def call(
        self,
        name: str,
        reply: Any = "same",
        *,
        cost: float = 0.0,
        owner: int | None = None,
        takes: float = 0.0,
        vote: bool = False,
    ) -> None:
        """A call from its start to its answer; a ``reply`` of None is a failure."""
        self.cycles.note(mark(name), name, cost=cost, owner=owner, vote=vote)
        self.now += takes
        self.cycles.answered(mark(name), None if reply is None else mark(reply), owner=owner)

    def calls_until_found(self, most: int = 1000, **named: Any) -> tuple[int, LoopFound]:
        for made in range(most):
            try:
                self.call("GET a", **named)
            except LoopFound as found:
                return made, found
        raise AssertionError("no loop was found")


def goes_round(turn: Callable[[int], None], most: int = 100) -> LoopFound:
    """What ends an execution that takes these turns."""
    for n in range(most):
        try:
            turn(n)
        except LoopFound as found:
            return found
    raise AssertionError("no loop was found")


def mark(text: Any) -> bytes:
    return hashlib.blake2b(str(text).encode(), digest_size=16).digest()


def test_the_same_call_with_the_same_answer_ends_after_its_repeats() -> None:
    made, found = World().calls_until_found()

    assert made == REPEATS
    assert (found.limit, found.used, found.ceiling) == ("repeats", 6, 5)
    assert str(found) == "GET a came round again and brought nothing new"


def test_repeats_can_be_set() -> None:
    assert World(repeats=1).calls_until_found()[0] == 1
    assert World(repeats=40).calls_until_found()[0] == 40


@pytest.mark.parametrize("cycle", [["A", "B"], ["A", "B", "C"], ["A", "A", "B"], list("ABCDEFGH")])
def test_a_cycle_of_calls_is_named_from_one_turn_to_the_next(cycle: list[str]) -> None:
    world = World()
    found = goes_round(lambda turn: world.call(cycle[turn % len(cycle)]))

    named = found.said.removesuffix(" came round again and brought nothing new").split(" → ")
    assert set(named) <= {*cycle, "…"}
    assert len(named) <= 6
    if len(cycle) < 4 and "A" not in cycle[1:]:
        assert "".join(named) in "".join(cycle * 2)
        assert len(named) == len(cycle)


def test_answers_that_were_all_given_before_are_nothing_new() -> None:
    world = World()
    assert goes_round(lambda turn: world.call("GET page", reply=turn % 3)).said.startswith("GET page")


def test_a_poll_whose_answers_differ_is_no_loop() -> None:
    world = World()
    for turn in range(500):
        world.call("GET status", reply=turn)


def test_a_poll_that_waits_is_no_loop_though_its_answers_are_the_same() -> None:
    world = World()
    for _ in range(500):
        world.call("GET status", reply="pending")
        world.now += 0.25


def test_who_waits_because_it_asks_a_model_meanwhile_is_in_a_loop_all_the_same() -> None:
    world = World()

    def turn(n: int) -> None:
        world.call("model", reply=n, cost=0.001, takes=2)
        world.call("GET tool")

    found = goes_round(turn)
    assert (found.said.partition(" ")[0], found.limit) == ("GET", "loop")


@pytest.mark.parametrize("takes", [0.0, 0.5])
def test_who_asks_two_by_turns_goes_round_however_long_the_answers_take(takes: float) -> None:
    world = World()

    def turn(n: int) -> None:
        world.call("AB"[n % 2], takes=takes)

    assert goes_round(turn).used == REPEATS + 1


def test_jobs_that_are_polled_by_turns_with_pauses_are_no_loop() -> None:
    world = World()
    for _ in range(100):
        world.call("GET job 1", takes=0.05)
        world.call("GET job 2", takes=0.05)
        world.now += 0.2


def test_a_poll_beside_a_call_that_takes_long_is_no_loop() -> None:
    world = World()
    world.cycles.note(mark("POST slow"), "POST slow")
    for _ in range(100):
        world.call("GET job")
        world.now += 0.2


@pytest.mark.parametrize("cost", [0.0, 0.001])
def test_a_helper_that_reads_the_same_beside_calls_that_bring_something_new_is_no_loop(cost: float) -> None:
    world = World()
    for n in range(50):
        world.call("GET rates")
        world.call(f"line {n}", reply="ok", cost=cost)
        world.call("GET rates")
    for n in range(50):
        world.call("GET rates")
        world.call("GET next", reply=n)


def test_a_helper_beside_calls_that_fail_is_a_loop_as_before() -> None:
    world = World()

    def turn(n: int) -> None:
        world.call("GET rates")
        world.call(f"line {n}", reply=None)

    assert goes_round(turn).used == REPEATS + 1


def test_what_one_record_learns_does_not_excuse_another() -> None:
    world = World(records=2)

    def turn(n: int) -> None:
        world.call(f"GET page {n}", owner=1)
        world.call("GET a", owner=0)

    assert goes_round(turn).said.startswith("GET a came round")


def test_a_question_may_be_put_several_times_to_vote_though_the_answers_are_the_same() -> None:
    world = World()
    found = goes_round(lambda turn: world.call("model", cost=0.01, vote=True))
    assert (found.used, found.ceiling, found.limit) == (2 * REPEATS + 1, 2 * REPEATS, "loop")


def test_a_turn_of_a_conversation_that_comes_round_ends_after_its_repeats() -> None:
    world = World()
    found = goes_round(lambda turn: world.call("model", cost=0.01))
    assert (found.used, found.limit) == (REPEATS + 1, "loop")


def test_a_conversation_that_grows_while_its_model_says_the_same_is_a_loop() -> None:
    world = World()

    def turn(n: int) -> None:
        world.call(f"model {n}", reply="look({})", cost=0.01)
        world.cycles.told(b"go", 2 * n + 2, b"look({})", "model gpt")

    found = goes_round(turn)
    assert (found.used, found.ceiling, found.limit) == (2 * REPEATS + 1, 2 * REPEATS, "loop")
    assert found.said == "model gpt said the same again as its conversation grew, without a change of state"


@pytest.mark.parametrize("beside", ["a write", "something new"])
def test_nor_is_it_one_when_something_changes_or_a_tool_brings_something_new(beside: str) -> None:
    world = World()
    for turn in range(100):
        if beside == "a write":
            world.call("GET a")
            world.cycles.changed(mark(turn))
        else:
            world.call("GET next", reply=turn)
        world.cycles.told(b"go", 2 * turn + 2, b"next({})", "model gpt")


def test_conversations_side_by_side_that_began_alike_count_as_one() -> None:
    world = World()
    for length in (2, 4, 6):
        for _ in range(30):
            world.cycles.told(b"go", length, b"look({})", "model gpt")


def test_a_call_that_costs_money_never_polls() -> None:
    world = World()

    def turn(_: int) -> None:
        world.call("model", cost=0.001)
        world.now += 10

    assert goes_round(turn).said.startswith("model came round")


def test_spending_without_a_change_of_state_ends_also_when_answers_differ() -> None:
    world = World()
    found = goes_round(lambda turn: world.call("model gpt", reply=turn, cost=0.25))
    assert found.used == 11
    assert found.said == "model gpt came round again and cost $2.5000 without a change of state"


def test_the_same_question_may_be_put_to_a_model_several_times_to_vote() -> None:
    world = World()
    for turn in range(2 * REPEATS):
        world.call("model", reply=turn, cost=0.01)


def test_spending_that_changes_something_each_time_is_no_loop() -> None:
    world = World()
    for turn in range(100):
        world.call("model", reply=turn, cost=0.25)
        world.cycles.changed(mark(turn))


def test_writing_the_very_same_again_and_again_is_no_change() -> None:
    world = World()

    def turn(_: int) -> None:
        world.call("GET a")
        world.cycles.changed(b"the same row")

    assert goes_round(turn).said.startswith("GET a came round")


def test_a_batch_that_makes_the_same_call_for_each_record_is_no_loop() -> None:
    world = World(records=200)
    for owner in range(200):
        world.call("GET rate", owner=owner)
        world.call("model", owner=owner, cost=0.001)


def test_nor_is_one_that_does_not_say_for_which_record_it_calls() -> None:
    world = World(records=200)
    for _ in range(200):
        world.call("GET rate")


def test_one_record_of_a_batch_that_goes_round_is_found() -> None:
    assert World(records=200).calls_until_found(owner=7)[0] == REPEATS


def test_a_call_that_fails_may_be_tried_twenty_times() -> None:
    made, found = World().calls_until_found(reply=None)

    assert made == 20
    assert str(found) == "GET a came round again and failed each time"


def test_tries_with_pauses_between_them_are_bounded_by_other_limits() -> None:
    world = World()
    for _ in range(500):
        world.call("GET a", reply=None)
        world.now += 1


def test_equal_calls_that_are_on_their_way_together_are_one_turn() -> None:
    world = World()
    for _ in range(REPEATS):
        for _ in range(10):
            world.cycles.note(mark("a"), "GET a")
        for _ in range(10):
            world.cycles.answered(mark("a"), mark("same"))
    with pytest.raises(LoopFound):
        world.call("a")


def test_calls_that_were_asked_for_at_once_are_one_turn_however_fast_they_are_answered() -> None:
    """They come in one after the other, and the first may be answered before the last is read."""
    world, number = World(), 0
    for _ in range(REPEATS):
        heard = number
        for _ in range(10):
            number += 1
            asked = request.set((number, heard))
            world.call("a")
            request.reset(asked)
    with pytest.raises(LoopFound):
        world.call("a")


def test_calls_of_which_each_waits_for_the_one_before_are_turns() -> None:
    world = World()

    def turn(n: int) -> None:
        asked = request.set((n + 1, n))
        try:
            world.call("a")
        finally:
            request.reset(asked)

    assert goes_round(turn).used == REPEATS + 1


def test_a_change_while_a_call_is_on_its_way_does_not_lose_its_count() -> None:
    world = World()
    for turn in range(3):
        world.cycles.note(mark("a"), "GET a")
        world.cycles.changed(mark(turn))
        world.cycles.answered(mark("a"), mark("same"))
        world.cycles.answered(mark("never noted"), mark("same"))
    assert world.calls_until_found()[0] <= REPEATS


def test_after_a_loop_every_request_of_the_execution_is_refused() -> None:
    meter = Meter(Limits(), 1, repeats=2)
    for _ in range(2):
        meter.note(b"a", "GET a")
        meter.answered(b"a", b"same")
    with pytest.raises(LoopFound):
        meter.note(b"a", "GET a")

    with pytest.raises(LoopFound, match="GET a came round"):
        meter.go_on()
    with pytest.raises(LimitExceeded):
        meter.go_on()


def test_an_execution_that_calls_nobody_keeps_no_count() -> None:
    meter = Meter(Limits(), 200)
    meter.changed(b"a row")
    meter.answered(b"a", b"b")
    assert meter._cycles is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from([None, 0, 1])), max_size=200))
def test_nothing_ends_that_made_no_call_more_often_than_its_repeats(calls: list[tuple[str, int, int | None]]) -> None:
    world = World(records=3)
    made: dict[tuple[str, int | None], int] = {}
    for name, reply, owner in calls:
        made[name, owner] = made.get((name, owner), 0) + 1
        try:
            world.call(name, reply=reply, owner=owner)
        except LoopFound:
            assert made[name, owner] > REPEATS
            return


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_whatever_comes_round_for_ever_is_found(cycle: list[str]) -> None:
    world = World()
    assert goes_round(lambda turn: world.call(cycle[turn % len(cycle)]), (REPEATS + 1) * len(cycle)).used > REPEATS
