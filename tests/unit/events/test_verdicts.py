from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.events.backlog import Queued
from circuit_script.events.verdicts import (
    LONGEST_BACKOFF,
    Finished,
    RecordEnd,
    RetryPolicy,
    Split,
    apart,
    ended,
    isolate,
    judge,
    settle_row,
    too_old,
)
from circuit_script.execution.outcome import Breached, Failed, Outcome, Succeeded
from circuit_script.governor import Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy(attempts=3, backoff=10, hold=300)
NEVER = RecordEnd("no", cancelled=True)
WAITS = RecordEnd("no money", after=7200.0, deferred=True)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("trust", [True, False])
def test_what_another_ended_runs_again_whole(size: int, trust: bool) -> None:
    verdict = judge(Failed("together", Usage(), suspect=0, disturbed=True), size, unattributed=True, trust=trust)
    assert verdict == Split("failed", [range(size)])


def breached(suspect: int | None = None) -> Breached:
    return Breached("wall_time", 31.0, 30.0, Usage(), suspect)


def row(attempts: int = 0, held_until: datetime | None = None) -> Queued:
    delivery = UUID(int=7)
    return Queued(5, 1, 3, attempts, 0, 99, delivery, None, held_until, "acme", "Contact", "afterInsert", "c1")


@pytest.mark.parametrize(
    ("outcome", "size", "unattributed", "verdict"),
    [
        (Succeeded(Usage()), 3, True, Finished("succeeded", {})),
        (Succeeded(Usage(), {1: "bad"}), 3, False, Finished("partial", {1: RecordEnd("bad")})),
        (Succeeded(Usage(), {0: "a", 1: "b"}), 2, False, Finished("failed", {0: RecordEnd("a"), 1: RecordEnd("b")})),
        (Succeeded(Usage(), {1: "bad"}), 3, True, Split("partial", [[1], [0, 2]])),
        (Succeeded(Usage(), {0: "a", 1: "b"}), 2, True, Finished("failed", {0: RecordEnd("a"), 1: RecordEnd("b")})),
        (Succeeded(Usage(), {0: "bad"}), 1, True, Finished("failed", {0: RecordEnd("bad")})),
        (Succeeded(Usage(), {0: "no"}, {0: None}), 1, False, Finished("cancelled", {0: NEVER})),
        (Succeeded(Usage(), {0: "no"}, {0: None}), 2, False, Finished("partial", {0: NEVER})),
        (
            Succeeded(Usage(), {0: "no", 1: "wait"}, {0: None, 1: 5.0}),
            2,
            True,
            Finished("failed", {0: NEVER, 1: RecordEnd("wait", 5.0)}),
        ),
        (Failed("boom", Usage()), 1, False, Finished("failed", {0: RecordEnd("boom")})),
        (Failed("boom", Usage()), 0, True, Finished("failed", {})),
        (breached(), 0, True, Finished("breached", {})),
        (Failed("boom", Usage(), suspect=2), 4, False, Split("failed", [[2], [0, 1, 3]])),
        (Failed("boom", Usage()), 5, False, Split("failed", [[0, 1], [2, 3, 4]])),
        (breached(), 1, False, Finished("breached", {0: RecordEnd("limit wall_time exceeded: 31.00 s of 30.00 s")})),
        (breached(1), 2, False, Split("breached", [[1], [0]])),
        (breached(), 2, False, Split("breached", [[0], [1]])),
    ],
)
def test_an_outcome_says_what_becomes_of_its_batch(
    outcome: Outcome, size: int, unattributed: bool, verdict: Finished | Split
) -> None:
    assert judge(outcome, size, unattributed=unattributed) == verdict


@pytest.mark.parametrize(
    ("outcome", "failures", "status", "whole"),
    [
        (Succeeded(Usage()), [], "succeeded", True),
        (Succeeded(Usage()), [NEVER], "partial", False),
        (Succeeded(Usage()), [NEVER, NEVER], "cancelled", False),
        (Succeeded(Usage()), [NEVER, RecordEnd("no")], "failed", False),
        (Succeeded(Usage()), [WAITS], "deferred", False),
        (Succeeded(Usage()), [WAITS, RecordEnd("no")], "failed", False),
        (Failed("boom", Usage()), [], "failed", False),
        (breached(), [], "breached", False),
    ],
)
def test_what_belongs_to_nobody_leaves_only_with_a_batch_in_which_nothing_failed(
    outcome: Outcome, failures: list[RecordEnd], status: str, whole: bool
) -> None:
    assert ended(outcome, failures, 2) == (status, whole)


@pytest.mark.parametrize(("limit", "final"), [("loop", True), ("depth", True), ("repeats", False), ("callouts", False)])
def test_who_paid_for_a_circle_does_not_go_round_it_again(limit: str, final: bool) -> None:
    verdict = judge(Breached(limit, 6, 5, Usage(), said="GET a came round"), 1, unattributed=True, trust=True)
    assert isinstance(verdict, Finished)
    assert [each.final for each in verdict.failures.values()] == [final]


@given(st.integers(2, 200), st.none() | st.integers(-5, 300))
def test_isolation_keeps_every_record_once_and_always_makes_smaller_parts(size: int, suspect: int | None) -> None:
    parts = isolate(suspect, size)

    assert sorted(place for part in parts for place in part) == list(range(size))
    assert all(0 < len(part) < size for part in parts)
    assert parts[0] == [suspect] or suspect not in range(size)


@given(st.data(), st.integers(1, 50))
def test_failed_records_stand_alone_and_the_others_together(data: st.DataObject, size: int) -> None:
    failed = data.draw(st.sets(st.integers(0, size - 1), min_size=1))

    parts = apart(failed, size)

    assert sorted(place for part in parts for place in part) == list(range(size))
    assert [part for part in parts if set(part) & failed] == [[place] for place in failed]


def test_who_waits_as_long_as_the_platform_said_waits_for_that() -> None:
    outcome = Succeeded(Usage(), {0: "no money", 1: "busy"}, {0: 7200.0, 1: 60.0})

    verdict = judge(outcome, 2, unattributed=False, put_off={7200.0, 9.0})

    assert verdict == Finished("failed", {0: WAITS, 1: RecordEnd("busy", 60.0)})


def test_to_wait_for_money_is_no_attempt_but_not_for_ever() -> None:
    waiting = replace(row(2), delivery=UUID(int=int(NOW.timestamp() * 1000) << 80))

    settled = settle_row(waiting, WAITS, POLICY, NOW + timedelta(days=31))

    assert (settled.status, settled.attempts) == ("deferred", 2)
    assert settled.not_before == NOW + timedelta(days=31, hours=2)
    settled = settle_row(waiting, WAITS, POLICY, NOW + timedelta(days=36))
    assert (settled.status, settled.attempts, settled.not_before) == ("dead", 2, None)


def test_a_success_leaves_the_queue() -> None:
    settled = settle_row(row(1), None, POLICY, NOW)

    assert (settled.status, settled.attempts, settled.reason) == ("succeeded", 2, None)
    assert settled.not_before is settled.held_until is None


def test_a_failure_is_tried_again_after_a_delay_and_holds_its_order_key() -> None:
    settled = settle_row(row(), RecordEnd("boom"), POLICY, NOW)

    assert (settled.status, settled.attempts, settled.reason) == ("retry", 1, "boom")
    assert settled.not_before is not None
    assert NOW <= settled.not_before <= NOW + timedelta(seconds=10)
    assert settled.held_until == NOW + timedelta(seconds=300)


def test_the_hold_counts_from_the_first_failure() -> None:
    first = NOW - timedelta(seconds=200)

    assert settle_row(row(1, held_until=first), RecordEnd("boom"), POLICY, NOW).held_until == first


def test_the_last_attempt_ends_in_a_dead_letter_with_its_reason() -> None:
    settled = settle_row(row(2), RecordEnd("boom"), POLICY, NOW)

    assert (settled.status, settled.attempts, settled.reason) == ("dead", 3, "boom")
    assert settled.not_before is settled.held_until is None


def test_a_retry_comes_when_its_author_wants_it_counts_as_an_attempt_and_holds_as_any_other() -> None:
    settled = settle_row(row(), RecordEnd("busy", after=7200.0), POLICY, NOW)

    assert (settled.status, settled.attempts, settled.reason) == ("retry", 1, "busy")
    assert settled.not_before == NOW + timedelta(hours=2)
    assert settled.held_until == NOW + timedelta(seconds=300)
    assert settle_row(row(), RecordEnd("busy", after=0.0), POLICY, NOW).not_before == NOW


def test_a_retry_after_the_last_attempt_is_a_dead_letter_with_its_reason() -> None:
    settled = settle_row(row(2), RecordEnd("busy", after=60.0), POLICY, NOW)

    assert (settled.status, settled.reason, settled.not_before) == ("dead", "busy", None)


def test_what_was_cancelled_leaves_the_queue_for_good_at_any_attempt() -> None:
    for attempts in (0, 2):
        settled = settle_row(row(attempts), NEVER, POLICY, NOW)
        assert (settled.status, settled.reason) == ("cancelled", "no")
        assert settled.not_before is settled.held_until is None


@given(st.integers(1, 100))
def test_delays_double_up_to_an_hour_and_are_spread(attempt: int) -> None:
    step = min(LONGEST_BACKOFF, 10 * 2 ** (attempt - 1))

    assert 0 <= POLICY.delay(attempt) <= step


def test_a_backoff_of_more_than_an_hour_is_kept() -> None:
    policy = RetryPolicy(attempts=3, backoff=6 * 3600.0, hold=0)
    assert max(policy.delay(1) for _ in range(200)) > LONGEST_BACKOFF
    assert all(policy.delay(5) <= 6 * 3600.0 for _ in range(200))


def test_the_age_of_a_job_counts_from_the_moment_for_which_it_came() -> None:
    arrived = NOW - timedelta(seconds=50)
    job = replace(row(), delivery=UUID(int=int(arrived.timestamp() * 1000) << 80), object="Job")
    assert too_old(job, 30.0, NOW) is not None
    assert too_old(replace(job, not_before=NOW), 30.0, NOW) is None
    later = NOW + timedelta(hours=1)
    assert too_old(replace(job, not_before=later), 30.0, later) is not None, "it waited for something else, too"


def test_a_batch_whose_suspects_were_wrong_is_halved() -> None:
    named = judge(Failed("boom", Usage(), suspect=3), 8, unattributed=False)
    halved = judge(Failed("boom", Usage(), suspect=3), 8, unattributed=False, trust=False)

    assert isinstance(named, Split)
    assert isinstance(halved, Split)
    assert named.parts == [[3], [0, 1, 2, 4, 5, 6, 7]]
    assert halved.parts == [[0, 1, 2, 3], [4, 5, 6, 7]]
