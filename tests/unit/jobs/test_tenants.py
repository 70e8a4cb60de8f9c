"""Whether the tenants of a schedule are there, and that each draws its own jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.execution.timing import Schedule
from circuit_script.jobs.schedules import _job
from circuit_script.wiring.tenants import check_tenants


def of(*tenants: str) -> HandlerSpec:
    schedule = Schedule(every=60.0, tenants=tenants)
    return HandlerSpec("nightly", (), file="app/jobs.py", line=7, job=JobSpec("scheduled", schedule=schedule))


def test_a_name_that_no_tenant_has_is_refused_with_file_line_and_cure() -> None:
    with pytest.raises(AppError, match=r"app/jobs.py:7: nightly: there is no tenant 'acm'") as refused:
        check_tenants([of("default", "globex", "acm")], ["acme", "globex"])
    assert refused.value.cure.startswith("Did you mean 'acme'?")


def test_default_is_always_there_and_all_are_whoever_is() -> None:
    everybody = HandlerSpec("all", (), job=JobSpec("scheduled", schedule=Schedule(every=60.0, tenants=None)))
    check_tenants([of("default"), of("acme"), everybody, HandlerSpec("trigger", ())], ["acme"])


def test_a_firing_is_known_by_its_handler_moment_and_tenant_and_late_by_a_jitter_of_its_own() -> None:
    schedule, firing = Schedule(every=60.0, jitter=600.0), datetime(2026, 11, 1, tzinfo=UTC)
    first, again, other = (_job("nightly", tenant, schedule, firing) for tenant in ("ada", "ada", "ben"))
    assert first.vendor_id == again.vendor_id == "nightly 2026-11-01T00:00:00+00:00 ada"
    assert first.due == again.due
    assert other.vendor_id != first.vendor_id
    assert other.due != first.due
    assert other.due is not None
    assert firing <= other.due < firing + timedelta(seconds=600)
