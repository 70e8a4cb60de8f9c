"""What the guardian calls wrong, how bad it is, and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from circuit_script.db.health import Health
from circuit_script.supervised import Heart
from circuit_script.telemetry.guardian import (
    ApiSeen,
    DiskSeen,
    Finding,
    RoleSeen,
    WaitSeen,
    api_findings,
    carried,
    clock_findings,
    database_findings,
    disk_findings,
    dropped_findings,
    expiry_findings,
    role_findings,
    wait_findings,
    worker_findings,
)

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
EARLY = timedelta(days=14)
WELL = Health(answered_in=0.001, bytes=1, connections=8, max_connections=100)
GB = 1024**3


def named(found: list[Finding]) -> dict[str, str]:
    for each in found:
        assert each.what.endswith("."), "a sentence"
        assert each.next, "what to do"
    return {each.name: each.severity for each in found}


def test_what_is_well_is_not_mentioned() -> None:
    assert database_findings(WELL, AT) == []
    assert disk_findings([DiskSeen("/srv", 100 * GB, 50 * GB, 1000, 900)], AT, 0.1) == []
    assert clock_findings(-0.9, AT) == []
    assert api_findings([ApiSeen("crm", "crm.test", 404, certificate_ends=AT + timedelta(days=15))], AT, EARLY) == []
    assert expiry_findings({"token": "2026-06-01"}, AT, EARLY) == []
    assert worker_findings([Heart("a", 1, -4.0), Heart("a", 2, 900.0)], AT) == [], "another one of the host lives"
    assert role_findings([RoleSeen("worker", restarts=2)], AT) == []
    assert wait_findings([WaitSeen("webhook", "crm", 9, 60.0)], AT) == []
    assert dropped_findings({"logs": 0}, AT) == []


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ({"answered_in": 2.0}, {"database:slow": "warning"}),
        ({"connections": 81}, {"database:connections": "warning"}),
        ({"connections": 96}, {"database:connections": "critical"}),
        ({"max_connections": 0}, {"database:connections": "critical"}),
        ({"oldest_transaction": 1000.0, "oldest_pid": 7}, {"database:transaction": "warning"}),
        ({"oldest_transaction": 20_000.0, "oldest_pid": 7}, {"database:transaction": "critical"}),
        ({"ids_used": 1_200_000_000}, {"database:wraparound": "warning"}),
        ({"ids_used": 2_000_000_000}, {"database:wraparound": "critical"}),
        ({"autovacuum": False}, {"database:autovacuum": "warning"}),
        ({"untidy": ("queue",)}, {"database:dead-rows": "warning"}),
        ({"slot": "old", "kept_log": 3 * GB}, {"database:slot": "warning"}),
        ({"slot": "old", "kept_log": 30 * GB}, {"database:slot": "critical"}),
        ({"standby_behind": 500.0}, {"database:replication": "warning"}),
    ],
)  # fmt: skip
def test_the_database_is_ill(seen: dict[str, object], wrong: dict[str, str]) -> None:
    values = {name: getattr(WELL, name) for name in Health.__dataclass_fields__} | seen
    assert named(database_findings(Health(**values), AT)) == wrong


def test_credentials_are_told_before_they_end() -> None:
    expiries = {"far": "2026-05-16", "near": "2026-05-10", "soon": "2026-05-03T13:00:00+02:00", "gone": "2026-05-01",
                "odd": "next spring"}  # fmt: skip
    found = {each.name: each for each in expiry_findings(expiries, AT, EARLY)}
    assert named(list(found.values())) == {
        "credential:near": "warning",
        "credential:soon": "critical",
        "credential:gone": "critical",
        "credential:odd": "warning",
    }
    assert "in 8 days" in found["credential:near"].what
    assert "in 1 day." in found["credential:soon"].what
    assert "has ended on 2026-05-01 00:00 UTC" in found["credential:gone"].what
    assert "'next spring'" in found["credential:odd"].what


def test_vendors_disks_clocks_roles_and_workers_are_ill() -> None:
    seen = [
        ApiSeen("down", "down.test", fault="Connection refused"),
        ApiSeen("sick", "sick.test", 503),
        ApiSeen("old", "old.test", 200, certificate_ends=AT + timedelta(hours=5)),
    ]
    assert named(api_findings(seen, AT, EARLY)) == {
        "api:down": "warning", "api:sick": "warning", "certificate:old": "critical",
    }  # fmt: skip
    disks = [DiskSeen("/a", 100 * GB, 9 * GB), DiskSeen("/b", 100 * GB, 3 * GB), DiskSeen("/c", GB, GB // 8),
             DiskSeen("/d", 100 * GB, 50 * GB, 1000, 10)]  # fmt: skip
    assert named(disk_findings(disks, AT, 0.1)) == {
        "disk:/a": "warning", "disk:/b": "critical", "disk:/c": "critical", "files:/d": "critical",
    }  # fmt: skip
    assert named(clock_findings(3.0, AT)) == {"clock": "warning"}
    assert named(clock_findings(-90.0, AT)) == {"clock": "critical"}
    roles = [RoleSeen("gateway", "it ended with status 1"), RoleSeen("dashboard", "no port"), RoleSeen("worker", "", 3)]
    assert named(role_findings(roles, AT)) == {
        "role:gateway": "critical", "role:dashboard": "warning", "role:worker": "warning",
    }  # fmt: skip
    (silent,) = worker_findings([Heart("a 1f", 1, 300.0), Heart("b", 2, -1.0), Heart("a 2e", 3, 200.0)], AT)
    assert (silent.name, silent.since) == ("worker:a", AT - timedelta(seconds=200))
    assert "process 3" in silent.what
    assert named(wait_findings([WaitSeen("webhook", "crm", 9, 6000.0)], AT)) == {"effects:webhook crm": "warning"}
    assert named(dropped_findings({"logs": 7}, AT)) == {"dropped:logs": "warning"}


def test_the_worst_comes_first_and_each_since_it_was_first_found() -> None:
    earlier = AT - timedelta(hours=3)
    before = [Finding("b", "warning", "B.", earlier, "do"), Finding("gone", "critical", "G.", earlier, "do")]
    found = carried([Finding("b", "warning", "B2.", AT, "do"), Finding("a", "critical", "A.", AT, "do")], before)
    assert [(each.name, each.what, each.since) for each in found] == [("a", "A.", AT), ("b", "B2.", earlier)]
    assert [Finding.of_row(each.as_row()) for each in found] == found


@pytest.mark.parametrize(
    "row", [{}, {"name": "x", "severity": "loud", "what": "", "since": AT.isoformat(), "next": ""},
            {"name": "x", "severity": "notice", "what": "", "since": "soon", "next": ""}],
)  # fmt: skip
def test_what_another_version_noted_is_no_finding(row: dict[str, str]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Finding.of_row(row)
