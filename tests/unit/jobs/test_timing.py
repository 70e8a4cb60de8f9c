"""When jobs run: durations, cron, daylight saving, and what is due after a pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.execution.timing import (
    MOST_CAUGHT_UP,
    Schedule,
    WrongTime,
    checked_cron,
    checked_zone,
    due,
    due_at,
    duration_shown,
    jitter_of,
    seconds_of,
)

MORNING = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def firings(schedule: Schedule, start: str, number: int) -> list[str]:
    """The next firings after ``start`` (UTC), as UTC."""
    return [each.strftime("%d %H:%M") for each in islice(schedule.after(utc(start)), number)]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (60, 60.0),
        (0.5, 0.5),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2d", 172_800.0),
        ("0.5h", 1800.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_durations_are_read_as_people_write_them(said: object, seconds: float) -> None:
    assert seconds_of(said) == seconds


@pytest.mark.parametrize("said", ["", "5", "m5", "5 minutes", -1, True, None, float("nan"), "-5m", [5]])
def test_what_is_no_duration_is_refused_with_a_cure(said: object) -> None:
    with pytest.raises(WrongTime, match="5m"):
        seconds_of(said)


@given(st.integers(min_value=1, max_value=10**8))
def test_a_duration_that_is_shown_can_be_read_again(seconds: int) -> None:
    assert seconds_of(duration_shown(seconds)) == seconds


def test_a_delay_may_be_a_moment_with_a_time_zone() -> None:
    at = datetime(2026, 11, 20, 9, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert due_at(at, MORNING) == utc("2026-11-20 08:00")
    assert due_at("5m", MORNING) == MORNING + timedelta(minutes=5)
    assert due_at(0, MORNING) is None
    assert due_at(MORNING - timedelta(days=1), MORNING) is None


@pytest.mark.parametrize(
    ("delay", "wrong"), [(datetime(2026, 11, 20), "no time zone"), ("31d", "more than 30 days"), ("soon", "delay is")]
)
def test_a_delay_that_cannot_be_meant_is_refused(delay: object, wrong: str) -> None:
    with pytest.raises(WrongTime, match=wrong):
        due_at(delay, MORNING)


@pytest.mark.parametrize(
    ("cron", "column", "word"),
    [
        ("61 7 * * *", 1, "minute"),
        ("0 25 * * *", 3, "hour"),
        ("0 7 32 * *", 5, "day of month"),
        ("0 7  * 13 *", 8, "month"),
        ("0 7 * * FUNDAY", 9, "day of week"),
        ("0 7 * * 5-1", 9, "day of week"),
        ("*/0 * * * *", 1, "minute"),
    ],
)
def test_a_bad_cron_expression_is_refused_with_its_place(cron: str, column: int, word: str) -> None:
    with pytest.raises(WrongTime, match=f"column {column}.* is no {word}"):
        checked_cron(cron)


@pytest.mark.parametrize("cron", ["", "0 7 * *", "0 0 7 * * *", "@daily", None, 5])
def test_a_cron_expression_has_five_fields(cron: object) -> None:
    with pytest.raises(WrongTime, match="five fields"):
        checked_cron(cron)


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(WrongTime, match=r"never fires|wrong at column"):
        checked_cron("0 0 30 2 *")


def test_an_unknown_zone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(WrongTime, match="Europe/Berlin"):
        checked_zone("Europe/Berln")
    with pytest.raises(WrongTime, match="Europe/Berlin"):
        checked_zone("Berlin")
    assert checked_zone("America/New_York") == "America/New_York"


def test_weekdays_in_a_zone() -> None:
    schedule = Schedule("0 7 * * MON-FRI", timezone="Europe/Berlin")
    assert firings(schedule, "2026-11-20 12:00", 3) == ["23 06:00", "24 06:00", "25 06:00"]


# The hour that is skipped and the one that comes twice, in UTC, of several zones: Lord Howe shifts half an hour, Cairo
# at midnight, New York and Berlin at two.
@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-03-27 12:00", ["28 01:30", "29 01:00", "30 00:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-23 12:00", ["24 00:30", "25 00:30", "26 01:30"]),
        ("America/New_York", "30 2 * * *", "2026-03-07 00:00", ["07 07:30", "08 07:00", "09 06:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31 00:00", ["31 05:30", "01 05:30", "02 06:30"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02 00:00", ["02 15:45", "03 15:30", "04 15:15"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-03 12:00", ["03 14:45", "04 14:45", "05 15:15"]),
        ("Africa/Cairo", "30 0 * * *", "2026-04-22 12:00", ["22 22:30", "23 22:00", "24 21:30"]),
        ("Asia/Kolkata", "0 9 * * *", "2026-03-28 00:00", ["28 03:30", "29 03:30", "30 03:30"]),
        ("UTC", "30 2 * * *", "2026-03-28 00:00", ["28 02:30", "29 02:30", "30 02:30"]),
    ],
)
def test_daylight_saving_skips_no_firing_and_doubles_none(
    zone: str, cron: str, start: str, expected: list[str]
) -> None:
    assert firings(Schedule(cron, timezone=zone), start, 3) == expected


def test_both_firings_of_a_skipped_hour_are_one() -> None:
    schedule = Schedule("15,45 2 * * *", timezone="Europe/Berlin")
    assert firings(schedule, "2026-03-28 23:00", 2) == ["29 01:00", "30 00:15"]


def test_each_hour_goes_on_through_the_hour_that_comes_twice() -> None:
    schedule = Schedule("*/30 * * * *", timezone="Europe/Berlin")
    assert firings(schedule, "2026-10-24 23:45", 6) == ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00",
                                                        "25 02:30"]  # fmt: skip


def test_who_begins_within_the_hour_that_comes_twice_fires_not_again() -> None:
    schedule = Schedule("30 2 * * *", timezone="Europe/Berlin")
    assert firings(schedule, "2026-10-25 01:10", 1) == ["26 01:30"]  # 02:10 for the second time


@given(
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 0 * * *", "15 1,2,3 * * SUN", "0 */2 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "UTC"]),
    st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1)),
)
def test_firings_rise_wherever_one_begins(cron: str, zone: str, start: datetime) -> None:
    moment = start.replace(tzinfo=UTC)
    found = [moment, *islice(Schedule(cron, timezone=zone).after(moment), 5)]
    assert all(one < other for one, other in pairwise(found))


@given(
    st.sampled_from(["30 2 * * *", "30 1 * * *", "15 2 * * SUN"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.lists(st.integers(min_value=1, max_value=20_000), min_size=1, max_size=40),
)
def test_however_often_one_looks_the_same_firings_are_found(cron: str, zone: str, steps: list[int]) -> None:
    """A virtual clock that moves by minutes, in leaps of any length: with "all" each firing comes exactly once."""
    schedule = Schedule(cron, timezone=zone, catch_up="all")
    moment = start = utc("2026-01-01 00:00")
    next_at, seen = schedule.next_after(start), []
    for step in steps:
        moment += timedelta(minutes=min(step, 9000))  # a week at most: older ones are left out
        assert next_at is not None
        found = due(schedule, next_at, moment)
        seen += found.firings
        next_at = found.next_at
    expected = []
    for each in schedule.after(start):
        if each > moment:
            break
        expected.append(each)
    assert seen == expected


def test_periods_are_counted_from_the_same_moment_for_all() -> None:
    schedule = Schedule(every=300.0)
    assert firings(schedule, "2026-11-20 07:01", 2) == ["20 07:05", "20 07:10"]
    assert schedule.next_after(utc("2026-11-20 07:05")) == utc("2026-11-20 07:10")


@pytest.mark.parametrize(
    ("catch_up", "run", "skipped"), [("last", ["10:00"], 3), ("all", ["07:00", "08:00", "09:00", "10:00"], 0),
                                     ("none", [], 4)]
)  # fmt: skip
def test_missed_firings_are_caught_up_as_the_author_says(catch_up: str, run: list[str], skipped: int) -> None:
    schedule = Schedule("0 * * * *", catch_up=catch_up)
    found = due(schedule, MORNING, utc("2026-11-20 10:20"))
    assert [each.strftime("%H:%M") for each in found.firings] == run
    assert found.skipped == skipped
    assert found.next_at == utc("2026-11-20 11:00")


@pytest.mark.parametrize("catch_up", ["last", "all", "none"])
def test_a_firing_that_is_a_moment_late_runs(catch_up: str) -> None:
    schedule = Schedule("0 * * * *", catch_up=catch_up)
    assert due(schedule, MORNING, MORNING + timedelta(seconds=59)).firings == (MORNING,)


def test_catching_up_is_bounded() -> None:
    schedule = Schedule(every=1.0, catch_up="all")
    found = due(schedule, MORNING, MORNING + timedelta(days=300))
    assert len(found.firings) == MOST_CAUGHT_UP
    assert found.firings[-1] == MORNING + timedelta(days=300)
    schedule = Schedule("* * * * *", catch_up="all")
    assert len(due(schedule, MORNING, MORNING + timedelta(days=300)).firings) == MOST_CAUGHT_UP


def test_the_last_firing_of_a_rare_schedule_is_not_forgotten() -> None:
    schedule = Schedule("0 7 1 1 *")
    found = due(schedule, utc("2026-01-01 07:00"), utc("2026-06-01 00:00"))
    assert found.firings == (utc("2026-01-01 07:00"),)
    assert found.next_at == utc("2027-01-01 07:00")


def test_nothing_is_due_before_its_time_or_when_the_clock_jumps_back() -> None:
    schedule = Schedule("0 * * * *")
    assert due(schedule, MORNING, MORNING - timedelta(hours=3)).firings == ()
    assert due(schedule, MORNING, MORNING - timedelta(hours=3)).next_at == MORNING


def test_jitter_spreads_firings_and_is_the_same_for_all() -> None:
    schedule = Schedule("0 * * * *", jitter=60.0)
    spread = [jitter_of(schedule, "nightly", MORNING + timedelta(hours=n)) for n in range(50)]
    assert spread == [jitter_of(schedule, "nightly", MORNING + timedelta(hours=n)) for n in range(50)]
    assert all(timedelta() <= each < timedelta(seconds=60) for each in spread)
    assert len(set(spread)) > 40
    assert jitter_of(Schedule("0 * * * *"), "nightly", MORNING) == timedelta()
