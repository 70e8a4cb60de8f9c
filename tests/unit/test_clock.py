from __future__ import annotations

import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from circuit_script import clock
from circuit_script.clock import now, time_of, uuid7


@pytest.fixture(autouse=True)
def by_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that ran before may have asked a database."""
    monkeypatch.setattr(clock, "_of_the_database", None)


def test_ids_have_the_layout_of_rfc_9562_version_7() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid7()
    after = time.time_ns() // 1_000_000

    assert identifier.version == 7
    assert identifier.variant == uuid.RFC_4122
    assert before <= identifier.int >> 80 <= after


def test_ids_rise_and_differ_even_inside_one_millisecond() -> None:
    ids = [uuid7() for _ in range(20_000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_rise_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = time.time_ns()
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: ahead - 3_600_000_000_000)

    later = [uuid7() for _ in range(100)]

    assert [first, *later] == sorted([first, *later])
    assert abs(time_of(later[-1]) - time_of(first)) < timedelta(seconds=1)


def test_ids_of_two_processes_differ_in_their_random_part() -> None:
    code = "from circuit_script.clock import uuid7; print(uuid7().int & (1 << 62) - 1)"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(there.stdout) != uuid7().int & (1 << 62) - 1


def test_an_id_tells_its_time_to_the_millisecond() -> None:
    moment, second = now(), timedelta(seconds=1)
    told = time_of(uuid7())

    assert moment - second < told < now() + second
    assert time_of(uuid.UUID("018bcfe5-6800-7000-8000-000000000000")) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert moment.tzinfo is UTC


AGREED = """
import time
from datetime import UTC, datetime, timedelta
from circuit_script import clock
ahead = datetime.now(UTC) + timedelta(hours=3)
clock.agree(ahead, time.monotonic())
real = time.time
time.time = lambda: real() - 7200
clock.agree(ahead - timedelta(seconds=5), time.monotonic() - 20)
print(abs((clock.now() - ahead).total_seconds()) < 4, abs((clock.time_of(clock.uuid7()) - ahead).total_seconds()) < 4)
"""


AHEAD = """
import time
from datetime import UTC, datetime, timedelta
from circuit_script import clock
real = time.time_ns
time.time_ns = lambda: real() + 3_600_000_000_000
before = clock.uuid7()
clock.agree(datetime.now(UTC), time.monotonic())
print(clock.time_of(before) - datetime.now(UTC) > timedelta(minutes=59))
print(abs(clock.time_of(clock.uuid7()) - datetime.now(UTC)) < timedelta(seconds=4))
"""


def test_ids_of_a_host_whose_clock_was_ahead_stay_ahead_no_longer_than_until_the_database_says_so() -> None:
    ran = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["True", "True"]


def test_what_the_database_says_counts_whatever_happens_to_the_hosts_clock_and_a_late_answer_proves_little() -> None:
    ran = subprocess.run([sys.executable, "-c", AGREED], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["True", "True"]
