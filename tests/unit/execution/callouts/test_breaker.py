from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.connectors.circuits import (
    FAILURES,
    LONGEST_REST,
    MAX_PLACES,
    MAX_TENANTS,
    PROBE,
    REST,
    WINDOW,
)
from circuit_script.errors import CalloutRefused
from circuit_script.execution.broker.callouts.breaker import Breakers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(breakers: Breakers, tenant: str = "acme", host: str = "api.example") -> float | None:
    """Seconds until it is tried again; None when the callout may leave."""
    try:
        breakers.ask(tenant, host)
    except CalloutRefused as error:
        return error.retry_after
    return None


def fail(breakers: Breakers, times: int = FAILURES, tenant: str = "acme", host: str = "api.example") -> None:
    for _ in range(times):
        breakers.failed(tenant, host)


def test_it_opens_after_failures_in_a_row_and_says_when_it_tries_again(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers, FAILURES - 1)
    assert refused(breakers) is None
    fail(breakers, 1)
    with pytest.raises(CalloutRefused, match=r"api\.example has failed 5 times in a row. It is tried again in 5\.0 s"):
        breakers.ask("acme", "api.example")
    clock.now += 2
    assert refused(breakers) == pytest.approx(REST - 2)


def test_another_tenant_and_another_host_go_on(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers)
    assert refused(breakers, tenant="other") is None
    assert refused(breakers, host="other.example") is None


def test_one_success_begins_the_row_anew(clock: Clock) -> None:
    breakers = Breakers(clock)
    for _ in range(3):
        fail(breakers, FAILURES - 1)
        breakers.succeeded("acme", "api.example")
        breakers.succeeded("acme", "api.example")
    assert refused(breakers) is None


def test_it_opens_when_half_of_the_last_ones_failed(clock: Clock) -> None:
    breakers = Breakers(clock)
    for _ in range(WINDOW // 2):
        assert refused(breakers) is None
        breakers.succeeded("acme", "api.example")
        breakers.failed("acme", "api.example")
    assert refused(breakers) == REST


def test_after_its_rest_one_probe_decides(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers)
    clock.now += REST
    assert refused(breakers) is None, "the probe"
    assert refused(breakers) is not None, "only one"
    fail(breakers, 1)
    assert refused(breakers) == REST * 2
    clock.now += REST * 2
    assert refused(breakers) is None
    breakers.succeeded("acme", "api.example")
    fail(breakers, FAILURES - 1)
    assert refused(breakers) is None, "closed, and begun anew"


def test_a_probe_that_gave_up_or_was_lost_makes_room_for_another(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers)
    clock.now += REST
    assert refused(breakers) is None
    breakers.gave_up("acme", "api.example")
    assert refused(breakers) is None
    clock.now += PROBE
    assert refused(breakers) is None


def test_its_rest_has_an_end(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers, 40)
    assert refused(breakers) == LONGEST_REST


def test_many_hosts_and_tenants_take_bounded_memory_and_one_tenant_pushes_out_no_other(clock: Clock) -> None:
    breakers = Breakers(clock)
    fail(breakers)
    for number in range(MAX_PLACES * 5):
        breakers.failed("noisy", f"h{number}.example")
    assert len(breakers) == MAX_PLACES + 1
    assert refused(breakers) is not None
    for number in range(MAX_TENANTS * 2):
        breakers.failed(f"t{number}", "h.example")
    assert len(breakers) == MAX_TENANTS


@given(st.lists(st.sampled_from(["ok", "fail", "give up", "wait"]), max_size=200))
def test_it_never_stays_closed_to_a_host_for_ever(said: list[str]) -> None:
    clock = Clock()
    breakers = Breakers(clock)
    for each in said:
        match each:
            case "wait":
                clock.now += 1.0
            case _ if refused(breakers) is not None:
                pass
            case "ok":
                breakers.succeeded("acme", "api.example")
            case "fail":
                breakers.failed("acme", "api.example")
            case _:
                breakers.gave_up("acme", "api.example")
    clock.now += LONGEST_REST + PROBE
    assert refused(breakers) is None
