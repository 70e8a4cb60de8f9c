"""A tenant whose quota is used up waits in the backlog, and nobody waits for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circuit_script.events.backlog import Queued
from tests.unit.events.test_backlog import AT_ONCE, backlog, row, take


def notice(id_: int, tenant: str = "acme") -> Queued:
    return replace(row(id_, tenant=tenant), object="Quota")


def test_nothing_of_a_parked_tenant_runs_until_its_time_has_come() -> None:
    waiting = backlog(row(1), row(2), row(3, tenant="bolt"))

    waiting.park("acme", 0.0, 30.0)

    assert take(waiting) == [3]
    assert take(waiting, 29.9) == []
    assert waiting.waiting_tenants() == 0, "nobody has to share with it"
    assert waiting.next_due(10.0, AT_ONCE) == pytest.approx(20.0), "and nobody looks before"
    assert take(waiting, 30.0) == [1, 2]


def test_what_comes_meanwhile_waits_with_it_and_notices_do_not() -> None:
    waiting = backlog(row(1))
    waiting.park("acme", 0.0, 30.0)
    waiting.offer(row(2), 1.0)
    waiting.offer(notice(3), 1.0)

    assert take(waiting, 2.0) == [3]
    assert take(waiting, 2.0) == []
    assert take(waiting, 30.0) == [1, 2]


def test_a_batch_that_was_refused_comes_back_in_its_order() -> None:
    first, second = row(1, key=9), row(2, key=9)
    waiting = backlog(first, second)
    assert take(waiting) == [1]

    waiting.park("acme", 1.0, 30.0)
    waiting.again(first, 1.0)

    assert take(waiting, 2.0) == []
    assert take(waiting, 31.0) == [1]
    waiting.done(first, 31.0)
    assert take(waiting, 31.0) == [2]


def test_a_retry_that_is_due_waits_with_its_tenant() -> None:
    first = row(1)
    waiting = backlog(first)
    take(waiting)
    waiting.again(first, 0.0, wait=5.0, hold=300.0)
    waiting.park("acme", 0.0, 30.0)

    assert take(waiting, 6.0) == []
    assert take(waiting, 30.0) == [1]


def test_a_lane_that_goes_takes_its_parked_rows_along() -> None:
    gone, kept = row(1), row(2)
    waiting = backlog(gone, kept)
    waiting.park("acme", 0.0, 30.0)

    waiting.drop([gone.lane], 1.0)

    assert take(waiting, 30.0) == [2]
    waiting.done(kept, 31.0)
    assert len(waiting) == 0


def test_a_notice_is_taken_though_its_tenant_has_enough_in_memory() -> None:
    waiting = backlog(*(row(n) for n in range(1, 31)), look_ahead=20)
    assert min(waiting.skipped["acme"].values()) == 21

    assert waiting.offer(notice(99), 0.0)

    waiting.park("acme", 0.0, 30.0)
    assert take(waiting, 1.0) == [99]
    assert min(waiting.skipped["acme"].values()) == 21, "of the others none is lost"


def test_a_second_refusal_changes_nothing() -> None:
    waiting = backlog(row(1))
    waiting.park("acme", 0.0, 30.0)
    waiting.park("acme", 10.0, 30.0)

    assert take(waiting, 30.0) == [1]
    waiting.park("acme", 31.0, 30.0)
    waiting.offer(row(2), 32.0)
    assert take(waiting, 40.0) == []
    assert take(waiting, 61.0) == [2]
