from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from circuit_script.events import backlog as events_backlog
from circuit_script.events.backlog import Backlog, Pace, Queued
from circuit_script.execution.outcome import ALL_OR_NONE, HandlerSpec
from circuit_script.tenants.pauses import Pause, Pauses

NOW = datetime(2026, 1, 1, tzinfo=UTC)

SPECS = {
    1: HandlerSpec("one", (), batch_size=3),
    2: HandlerSpec("two", (), batch_size=200),
    3: HandlerSpec("three", (), batch_size=3, coalesce=True),
}
AT_ONCE: Callable[[HandlerSpec], Pace] = lambda spec: Pace(spec.batch_size, 0.0)  # noqa: E731  # a constant of the tests


def anyone(tenant: str, spec: HandlerSpec) -> bool:
    return True


def row(
    id_: int, *, tenant: str = "acme", key: int | None = None, handler: int = 2, event: str = "afterInsert"
) -> Queued:
    order = id_ if key is None else key
    return Queued(
        id_, handler, order % 64, 0, 0, order, UUID(int=id_), None, None, tenant, "Contact", event, f"c{order}"
    )


def backlog(*rows: Queued, look_ahead: int = 2000) -> Backlog:
    made = Backlog(SPECS, look_ahead)
    for each in rows:
        made.offer(each, 0.0)
    return made


def take(waiting: Backlog, now: float = 0.0, pace: Callable[[HandlerSpec], Pace] = AT_ONCE) -> list[int]:
    return [each.id for each in waiting.next_batch(now, pace, anyone)]


def test_a_batch_closes_when_it_is_full() -> None:
    waiting = backlog(*(row(n, handler=1) for n in range(1, 6)))
    patient = lambda spec: Pace(spec.batch_size, 60.0)  # noqa: E731  # one line

    assert take(waiting, pace=patient) == [1, 2, 3]
    assert take(waiting, pace=patient) == [], "two of three, and nobody has waited for a minute"


def test_a_batch_closes_when_its_oldest_row_has_waited_long_enough() -> None:
    waiting = Backlog(SPECS)
    waiting.offer(row(1), 10.0)
    waiting.offer(row(2), 10.9)
    pace = lambda spec: Pace(200, 1.0)  # noqa: E731  # one line

    assert take(waiting, 10.5, pace) == []
    assert waiting.next_due(10.5, pace) == pytest.approx(0.5)
    assert take(waiting, 11.0, pace) == [1, 2]
    assert waiting.next_due(11.0, pace) is None


def test_a_closed_batch_that_may_not_run_is_due_at_no_time_and_others_are() -> None:
    waiting = backlog(*(row(n, event=f"after{n}") for n in range(1, 20)))
    pace = lambda spec: Pace(200, 1.0)  # noqa: E731  # one line
    assert waiting.next_batch(2.0, pace, lambda tenant, spec: False) == []
    assert waiting.next_due(2.0, pace) is None, "nobody looks before something has changed"

    waiting.offer(row(30), 2.5)
    assert waiting.next_due(2.6, pace) == pytest.approx(0.9)
    assert waiting.next_batch(2.7, pace, lambda tenant, spec: False) == []
    assert waiting.next_due(3.5, pace) == 0, "it has closed since the last look"


def test_a_batch_is_of_one_tenant_one_handler_and_one_kind_of_event() -> None:
    rows = [
        row(1),
        row(2, tenant="bolt"),
        row(3, handler=1),
        row(4, event="afterUpdate"),
        row(5),
    ]
    waiting = backlog(*rows)

    batches = [take(waiting) for _ in range(5)]

    assert sorted(batches) == [[], [1, 5], [2], [3], [4]]


def test_rows_of_one_order_key_run_one_after_the_other() -> None:
    first, second, third = rows = [row(1, key=9), row(2, key=9), row(3, key=9)]
    waiting = backlog(*rows)

    for each in (first, second, third):
        assert take(waiting) == [each.id]
        assert take(waiting) == []
        waiting.done(each, 0.0)
    assert len(waiting) == 0


def test_handlers_of_one_event_do_not_wait_for_each_other() -> None:
    waiting = backlog(row(1, key=9, handler=1), row(1, key=9, handler=2), row(2, key=9, handler=2))

    assert sorted([take(waiting), take(waiting)]) == [[1], [1]]
    assert take(waiting) == []


def test_a_retry_holds_its_order_key_until_it_is_due() -> None:
    first, second = row(1, key=9), row(2, key=9)
    waiting = backlog(first, second)
    take(waiting)

    waiting.again(first, 0.0, wait=5.0, hold=300.0)

    assert take(waiting, 4.9) == []
    assert waiting.next_due(4.0, AT_ONCE) == pytest.approx(1.0)
    assert take(waiting, 5.0) == [1]
    waiting.done(first, 5.0)
    assert take(waiting, 5.0) == [2]


def test_a_retry_older_than_hold_is_overtaken_and_comes_back_before_what_still_waits() -> None:
    first, second, third = row(1, key=9), row(2, key=9), row(3, key=9)
    waiting = backlog(first, second, third)
    take(waiting)
    waiting.again(first, 0.0, wait=600.0, hold=300.0)

    assert take(waiting, 299.0) == []
    assert take(waiting, 300.0) == [2]
    assert take(waiting, 600.0) == [], "the second is running"
    waiting.done(second, 601.0)
    assert take(waiting, 601.0) == [1], "before the third"
    waiting.done(first, 602.0)
    assert take(waiting, 602.0) == [3]


def test_a_hold_that_ends_in_the_moment_of_the_retry_lets_nobody_pass() -> None:
    first, second = row(1, key=9), row(2, key=9)
    waiting = backlog(first, second)
    waiting.next_batch(1.0, AT_ONCE, anyone)

    waiting.again(first, 1.0, wait=1e-22, hold=0.0)

    assert take(waiting, 1.0) == [1]
    assert take(waiting, 1.0) == []


def test_a_late_retry_takes_the_place_of_a_head_that_has_not_started() -> None:
    first, second = row(1, key=9), row(2, key=9)
    waiting = backlog(first, second)
    take(waiting)
    waiting.again(first, 0.0, wait=600.0, hold=300.0)
    waiting.next_batch(300.0, AT_ONCE, lambda tenant, spec: False)

    assert take(waiting, 600.0) == [1]
    assert take(waiting, 600.0) == []
    waiting.done(first, 601.0)
    assert take(waiting, 601.0) == [2]


def test_a_retry_read_from_the_queue_waits_for_what_is_left_of_its_delay() -> None:
    waiting = Backlog(SPECS)
    waiting.offer(row(1, key=9), 0.0, wait=5.0, hold=1.0)
    waiting.offer(row(2, key=9), 0.0)

    assert take(waiting, 0.5) == []
    assert take(waiting, 1.0) == [2]


def test_a_noisy_tenant_delays_a_quiet_one_by_no_more_than_a_batch() -> None:
    waiting = backlog(*(row(n, tenant="noisy") for n in range(1, 5001)), look_ahead=10_000)
    waiting.offer(row(5001, tenant="quiet"), 0.0)

    batches = [take(waiting), take(waiting)]

    assert [5001] in batches
    assert sorted(map(len, batches)) == [1, 200]


def test_tenants_take_turns() -> None:
    waiting = backlog(*(row(n, tenant=f"t{n % 3}", handler=1) for n in range(1, 19)))

    order = []
    while batch := waiting.next_batch(0.0, AT_ONCE, anyone):
        order.append(batch[0].tenant)

    assert len(order) == 6
    assert sorted(order[:3]) == sorted(order[3:]) == ["t0", "t1", "t2"]
    assert waiting.waiting_tenants() == 0


def test_groups_of_one_tenant_take_turns_too() -> None:
    waiting = backlog(*(row(n, handler=1) for n in range(1, 7)), row(7, handler=1, event="afterUpdate"))

    assert [take(waiting), take(waiting), take(waiting)] == [[1, 2, 3], [7], [4, 5, 6]]


def test_a_tenant_that_may_not_run_does_not_stop_the_others() -> None:
    waiting = backlog(row(1, tenant="noisy"), row(2, tenant="quiet"))

    batch = waiting.next_batch(0.0, AT_ONCE, lambda tenant, spec: tenant != "noisy")

    assert [each.id for each in batch] == [2]
    assert waiting.waiting_tenants() == 1


def test_however_many_tenants_there_are_memory_is_bounded_and_each_of_them_has_a_row_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_backlog, "FULL", 1)
    monkeypatch.setattr(events_backlog, "MOST", 6)
    rows = [row(n, tenant=f"t{(n - 1) // 4}") for n in range(1, 17)]
    waiting = backlog(*rows, look_ahead=4)

    assert len(waiting) == 4 + 2 + 1 + 1
    assert sorted(waiting.skipped) == ["t1", "t2", "t3"]
    assert waiting.hungry() == [], "who is skipped has a row"

    waiting.done(next(each for each in rows if each.tenant == "t2"), 0.0)
    assert waiting.hungry() == ["t2"]


def test_a_tenant_with_enough_in_memory_is_skipped_and_read_again_when_it_is_hungry() -> None:
    rows = [row(n) for n in range(1, 11)]
    waiting = backlog(*rows, look_ahead=4)

    assert len(waiting) == 4
    assert waiting.skipped == {"acme": {n: n for n in range(5, 11)}}
    assert waiting.hungry() == []
    taken = waiting.next_batch(0.0, AT_ONCE, anyone)
    for each in taken[:3]:
        waiting.done(each, 0.0)
    assert waiting.hungry() == ["acme"]

    assert not waiting.offer(row(11), 0.0), "skipped as long as older ones are not read"
    assert min(waiting.skipped["acme"].values()) == 5
    del waiting.skipped["acme"]
    assert [waiting.offer(each, 0.0) for each in rows[4:]] == [True, True, True, False, False, False]
    assert min(waiting.skipped["acme"].values()) == 8


def test_skipping_one_tenant_does_not_touch_another() -> None:
    waiting = backlog(*(row(n) for n in range(1, 10)), row(10, tenant="bolt"), look_ahead=4)

    assert take(waiting) == [1, 2, 3, 4]
    assert take(waiting) == [10]


def test_a_row_that_is_known_is_not_taken_twice() -> None:
    waiting = backlog(row(1))

    assert not waiting.offer(row(1), 0.0)
    assert take(waiting) == [1]
    assert not waiting.offer(row(1), 0.0)
    assert take(waiting) == []


def test_low_water_lies_below_everything_that_still_has_to_be_done() -> None:
    first, second = row(3, key=1), row(7, key=2)
    waiting = backlog(first, second)

    assert waiting.low_water([1, 2, 5], cursor=20) == {1: 2, 2: 6, 5: 20}
    take(waiting)
    assert waiting.low_water([1], cursor=20) == {1: 2}, "running is not done"
    waiting.done(first, 0.0)
    assert waiting.low_water([1, 2], cursor=20) == {1: 20, 2: 6}


def test_low_water_lies_below_the_first_row_that_was_skipped() -> None:
    waiting = backlog(*(row(n, key=n) for n in range(1, 10)), look_ahead=2)
    for each in waiting.next_batch(0.0, AT_ONCE, anyone):
        waiting.done(each, 0.0)

    assert waiting.low_water([3, 40], cursor=9) == {3: 2, 40: 9}, "3 was skipped, reads start above the mark"


def test_a_lane_that_goes_is_not_read_again_for_a_tenant_that_was_skipped() -> None:
    waiting = backlog(*(row(n, key=n) for n in range(1, 5)), look_ahead=2)
    assert waiting.skipped == {"acme": {3: 3, 4: 4}}

    waiting.drop([3], 0.0)
    assert waiting.skipped == {"acme": {4: 4}}
    assert waiting.low_water([3, 4], cursor=9) == {3: 9, 4: 3}

    waiting.drop([4], 0.0)
    assert waiting.skipped == {}


def test_dropping_a_lane_forgets_its_rows_and_leaves_the_others() -> None:
    running, waiting_behind, other = row(1, key=1), row(2, key=1), row(3, key=2)
    waiting = backlog(running, waiting_behind, other)
    waiting.next_batch(0.0, AT_ONCE, anyone)

    waiting.drop([1], 0.0)

    assert len(waiting) == 1
    assert waiting.low_water([1, 2], cursor=9) == {1: 9, 2: 2}
    assert take(waiting) == []


def test_dropping_takes_waiting_rows_and_retries_out_of_the_groups() -> None:
    retried = row(1, key=1)
    waiting = backlog(retried, row(2, key=65))
    waiting.next_batch(0.0, AT_ONCE, anyone)
    waiting.again(retried, 0.0, wait=1.0, hold=10.0)

    waiting.drop([1], 0.0)

    assert take(waiting, 100.0) == []
    assert len(waiting) == 0
    assert waiting.waiting_tenants() == 0


@pytest.mark.parametrize("late", ["done", "again"])
def test_an_execution_that_outlived_its_lane_does_not_disturb_the_row_read_anew(late: str) -> None:
    old = row(1, key=1)
    waiting = backlog(old)
    waiting.next_batch(0.0, AT_ONCE, anyone)
    waiting.drop([1], 0.0)
    new, behind = row(1, key=1), row(2, key=1)
    waiting.offer(new, 0.0)
    waiting.offer(behind, 0.0)

    if late == "done":
        waiting.done(old, 0.0)
    else:
        waiting.again(old, 0.0)

    batch = waiting.next_batch(0.0, AT_ONCE, anyone)
    assert batch == [new]
    assert take(waiting) == []
    waiting.done(new, 0.0)
    assert take(waiting) == [2], "and what waited behind it is not stuck"


class Model(RuleBasedStateMachine):
    """Random life of a backlog against what guarantee 6 says of it."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(SPECS, look_ahead=12)
        self.now = 0.0
        self.ids = itertools.count(1)
        self.stored: dict[tuple[int, int], Queued] = {}
        self.running: list[Queued] = []
        self.overtaken: set[tuple[int, int]] = set()
        self.holds: dict[tuple[int, int], float] = {}

    @rule(
        key=st.integers(0, 3),
        tenant=st.sampled_from("ab"),
        handlers=st.sampled_from([(1,), (2,), (3,), (1, 2), (2, 3)]),
        event=st.sampled_from(["afterUpdate", "afterUpdate", "afterInsert"]),
    )
    def arrive(self, key: int, tenant: str, handlers: tuple[int, ...], event: str) -> None:
        id_ = next(self.ids)
        for handler in handlers:
            made = row(id_, tenant=tenant, key=key, handler=handler, event=event)
            self.stored[id_, handler] = made
            self.backlog.offer(made, self.now)

    @rule()
    def run(self) -> None:
        for each in self.backlog.next_batch(self.now, AT_ONCE, anyone):
            ahead = [
                other
                for other in self.stored.values()
                if other.chain == each.chain and other.id < each.id and self._holds(other)
            ]
            ahead = [other for other in ahead if all(other is not one for one in each.absorbed)]
            assert not ahead, f"{each.id} overtook {[other.id for other in ahead]}"
            assert not self._is_paused(each), "nothing of what is paused starts"
            for older in each.absorbed:
                assert older.id < each.id
                assert (older.record, older.event, each.event) == (each.record, "afterUpdate", "afterUpdate")
            self.running.append(each)
            self.holds.pop((each.id, each.handler), None)

    def _holds(self, other: Queued) -> bool:
        until = self.holds.get((other.id, other.handler))
        return until is None or self.now < until

    @rule(which=st.integers(0, 20))
    def finish(self, which: int) -> None:
        if self.running:
            each = self.running.pop(which % len(self.running))
            for one in (*each.absorbed, each):
                del self.stored[one.id, one.handler]
                self.backlog.done(one, self.now)

    @rule(which=st.integers(0, 20))
    def finish_without_the_older_ones(self, which: int) -> None:
        """It became a dead letter alone."""
        if self.running:
            each = self.running.pop(which % len(self.running))
            del self.stored[each.id, each.handler]
            self.backlog.done(each, self.now)
            for older in reversed(each.absorbed):
                self.backlog.restore(older, self.now)

    @rule(trigger=st.sampled_from([None, "one", "two", "three"]), record=st.sampled_from([None, "c0", "c1"]))
    def pause(self, trigger: str | None, record: str | None) -> None:
        """From now on these are paused, and what was paused before goes on."""
        pauses = self.backlog.pauses
        said = [("trigger", trigger, None), ("record", record, "a")]
        pauses._set([Pause(1, kind, value, of, "", "", NOW) for kind, value, of in said if value])  # type: ignore[arg-type]  # one of its kinds
        self.backlog.pauses_changed(self.now)

    def _is_paused(self, each: Queued) -> bool:
        pauses = self.backlog.pauses
        return pauses.holds(SPECS[each.handler].name, each.tenant) or pauses.holds_record(each.tenant, each.record)

    @rule()
    def bring_back(self) -> None:
        aside = self.backlog.aside
        for key in aside.returning(20):
            handler, tenant, order = key
            first = aside.first(key)
            firsts = aside.take(key)
            meant = [
                each
                for _, each in sorted(self.stored.items())
                if each.handler == handler
                and each.tenant == tenant
                and each.id >= first
                and order in (None, each.order_hash)
            ]
            for each in meant[:2]:
                self.backlog.offer(self._as_read(each), self.now)
            if len(meant) >= 2:
                aside.leave(key, firsts, meant[1].id)

    def _as_read(self, each: Queued) -> Queued:
        """Whoever reads the queue gets a row anew, unless it is known: then it stays who it is."""
        known = self.backlog._known.get((each.id, each.handler))
        if known is not None:
            return known
        made = row(each.id, tenant=each.tenant, key=each.order_hash, handler=each.handler, event=each.event)
        self.stored[each.id, each.handler] = made
        self.holds.pop((each.id, each.handler), None)
        return made

    @rule(which=st.integers(0, 20), wait=st.floats(0, 20), hold=st.floats(0, 20))
    def retry(self, which: int, wait: float, hold: float) -> None:
        if self.running:
            each = self.running.pop(which % len(self.running))
            self.holds[each.id, each.handler] = self.now + max(hold, 0) if hold < wait else float("inf")
            if wait == 0:
                del self.holds[each.id, each.handler]
            self.backlog.again(each, self.now, wait, hold)

    @rule(which=st.integers(0, 20), seconds=st.floats(0, 40))
    def refuse(self, which: int, seconds: float) -> None:
        """Its tenant's quota is used up."""
        if self.running:
            each = self.running.pop(which % len(self.running))
            self.backlog.park(each.tenant, self.now, seconds)
            self.backlog.again(each, self.now)

    @rule(seconds=st.floats(0, 15))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def refill(self) -> None:
        for tenant in self.backlog.hungry():
            first = min(self.backlog.skipped.pop(tenant).values())
            for key in sorted(self.stored):
                each = self.stored[key]
                if each.tenant == tenant and each.id >= first:
                    self.backlog.offer(self._as_read(each), self.now)

    @invariant()
    def never_two_of_one_order_key(self) -> None:
        chains = [each.chain for each in self.running]
        assert len(chains) == len(set(chains))

    @invariant()
    def nothing_is_forgotten_below_low_water(self) -> None:
        low = self.backlog.low_water(range(64), cursor=10**9)
        assert all(low[each.lane] < each.id for each in self.stored.values())

    def teardown(self) -> None:
        """Whatever happened, in the end everything runs."""
        self.pause(None, None)
        for _ in range(10_000):
            self.now += 30.0
            self.refill()
            self.bring_back()
            self.run()
            while self.running:
                self.finish(0)
            if not self.stored:
                break
        assert not self.stored
        assert len(self.backlog) == 0


Model.TestCase.settings = settings(stateful_step_count=40)
test_order_fairness_and_retries_hold_in_any_sequence = Model.TestCase


def test_timers_of_rows_that_have_left_are_dropped() -> None:
    """A hold of days outlasts its row: what has left must not stay in memory for that long."""
    waiting = backlog()
    for id_ in range(30_000):
        late = row(id_, tenant=f"t{id_ % 50}")
        waiting.offer(late, 0.0, 10.0, 5.0)
        waiting.done(late, 0.0)
    assert len(waiting._timers) <= 20_002


def test_what_runs_by_another_release_shares_no_batch_and_keeps_the_order_of_its_record() -> None:
    old = HandlerSpec("each", (("Contact", "afterInsert"),), batch_size=2, release=7)
    waiting = Backlog(SPECS, recorded=lambda handler, release: old)
    recorded, live, other, later = (row(n, handler=1, key=key) for n, key in ((1, 1), (2, 1), (3, 3), (4, 4)))
    recorded.release = later.release = 7
    for each in (recorded, live, other, later):
        waiting.offer(each, 0.0)

    assert sorted([take(waiting), take(waiting)]) == [[1, 4], [3]]
    assert take(waiting) == [], "its record is handled by the other release now"
    waiting.done(recorded, 1.0)
    assert take(waiting, 1.0) == [2]


def test_what_is_paused_by_a_name_that_only_its_release_knows_is_put_aside_when_that_is_ready() -> None:
    specs = [HandlerSpec("", (), release=7)]
    pauses = Pauses()
    pauses._set([Pause(1, "trigger", "old", None, "", "", NOW)])
    waiting = Backlog({9: HandlerSpec("", ())}, pauses=pauses, recorded=lambda handler, release: specs[0])
    rows = [row(n, handler=9, key=key) for n, key in ((1, 1), (2, 1), (3, 3))]
    for each in rows:
        each.release = 7
        waiting.offer(each, 0.0)

    specs[0] = HandlerSpec("old", (), release=7)
    waiting.meet(7, 1.0)

    assert take(waiting, 1.0) == []
    assert len(waiting) == 0
    assert waiting.low_water(range(64), 10)[1] == 0


def test_a_batch_that_is_all_or_none_stays_together_also_when_its_release_comes_later() -> None:
    specs = [HandlerSpec("", (), release=7)]
    waiting = Backlog(SPECS, recorded=lambda handler, release: specs[0])
    bound, alone, other = (row(n, handler=1) for n in (1, 2, 3))
    for each in (bound, alone, other):
        each.release = 7
    bound.attempts, bound.not_before = 1, NOW
    for each in (bound, alone, other):
        waiting.offer(each, 0.0)

    specs[0] = HandlerSpec("one", (), batch=ALL_OR_NONE, release=7)
    waiting.meet(7, 1.0)

    assert sorted([take(waiting, 1.0), take(waiting, 1.0)]) == [[1], [2, 3]]


def test_what_arrives_takes_turns_with_what_a_replay_brings_of_the_same_handler() -> None:
    waiting = Backlog(SPECS)
    for n in range(1, 8):
        each = row(n, handler=1)
        each.replay = UUID(int=1) if n < 7 else None
        waiting.offer(each, 0.0)

    assert [take(waiting) for _ in range(3)] == [[1, 2, 3], [7], [4, 5, 6]]
