"""When jobs run: durations as people write them, cron expressions, and what is due after a pause. Pure: no clock.

Cron is read by cronsim, in Debian's way: a firing in an hour that daylight saving skips runs once, right after it; one
in an hour that comes twice runs the first time. Where hour or minute is a star, time goes on as it passes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

CATCH_UP = ("last", "all", "none")
MOST_CAUGHT_UP = 100  # firings, the latest of those that were missed
LOOK_BACK = timedelta(days=7)  # as long as the ledger knows what it has seen
LATE = timedelta(seconds=60)  # from then on a firing counts as missed
SHORTEST_PERIOD = 1.0  # seconds
LONGEST_PERIOD = 366 * 86_400.0
LONGEST_DELAY = 30 * 86_400.0
HORIZON = timedelta(seconds=60)  # a job that is due later waits outside of the queue
LONGEST_JITTER = 86_400.0
FIELDS = ("minute", "hour", "day of month", "month", "day of week")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class WrongTime(ValueError):
    """A time, a cron expression or a zone that cannot be read; ``cure`` says how it is written."""

    def __init__(self, wrong: str, cure: str) -> None:
        self.wrong = wrong
        self.cure = cure
        super().__init__(f"{wrong} {cure}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """``cron`` (in ``timezone``) or ``every`` so many seconds, counted from midnight UTC of 1 January 1970.

    ``jitter`` spreads each firing over so many seconds; ``catch_up`` says what becomes of firings that were missed.
    ``tenants`` are those for whom it fires, each by itself; None is all that there are.
    """

    cron: str | None = None
    every: float | None = None
    timezone: str = "UTC"
    jitter: float = 0.0
    catch_up: str = "last"
    tenants: tuple[str, ...] | None = ("default",)

    @property
    def shown(self) -> str:
        """As a person reads it; schedules with the same text fire at the same moments."""
        return f"{self.cron} {self.timezone}" if self.cron is not None else f"every {duration_shown(self.every or 0)}"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Every firing later than ``moment``, in UTC, rising. Ends where the calendar has no more."""
        if self.cron is None:
            return self._periods(moment)
        return _cron_after(self.cron, self.timezone, moment)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first firing later than ``moment``; None when there is none."""
        return next(self.after(moment), None)

    def _periods(self, moment: datetime) -> Iterator[datetime]:
        period = timedelta(seconds=self.every or SHORTEST_PERIOD)
        n = (moment - EPOCH) // period + 1
        while True:
            yield EPOCH + n * period
            n += 1


@dataclass(frozen=True, slots=True)
class Due:
    """What of a schedule is due: the firings that run now, the next one, and how many were left out."""

    firings: tuple[datetime, ...]
    next_at: datetime | None
    skipped: int = 0


def due(schedule: Schedule, next_at: datetime, moment: datetime) -> Due:
    """What is due at ``moment`` of a schedule whose next firing was ``next_at``.

    A firing up to a minute late is on time. Of those that were missed, "last" runs the latest, "all" each of the latest
    100 within 7 days, "none" nothing.
    """
    if next_at > moment:
        return Due((), next_at)
    back = LOOK_BACK if schedule.every is None else min(LOOK_BACK, timedelta(seconds=schedule.every) * MOST_CAUGHT_UP)
    firings, following, count = _between(schedule, max(next_at, moment - back), moment, inclusive=next_at)
    if not firings:  # it fires so rarely that its last one is older
        firings, following, count = _between(schedule, next_at, moment, inclusive=next_at)
    match schedule.catch_up:
        case "all":
            run = firings
        case "none" if moment - firings[-1] > LATE:
            run = ()
        case _:
            run = firings[-1:]
    return Due(run, following, count - len(run))


def jitter_of(schedule: Schedule, name: str, firing: datetime) -> timedelta:
    """By how much this firing of ``name`` comes later: the same for whoever asks."""
    if not schedule.jitter:
        return timedelta()
    digest = hashlib.blake2b(f"{name} {firing.isoformat()}".encode(), digest_size=8).digest()
    return timedelta(seconds=schedule.jitter * int.from_bytes(digest, "big") / 2**64)


def _between(
    schedule: Schedule, start: datetime, end: datetime, *, inclusive: datetime
) -> tuple[tuple[datetime, ...], datetime | None, int]:
    """The latest firings from ``start`` to ``end``, the first one after that, and how many there were."""
    latest: deque[datetime] = deque(maxlen=MOST_CAUGHT_UP)
    count = 0
    for firing in chain((inclusive,) if start <= inclusive else (), schedule.after(start)):
        if firing > end:
            return tuple(latest), firing, count
        latest.append(firing)
        count += 1
    return tuple(latest), None, count


def _cron_after(cron: str, timezone: str, moment: datetime) -> Iterator[datetime]:
    from cronsim import CronSim

    last = moment
    for found in CronSim(cron, moment.astimezone(_zone(timezone))):
        firing = found.astimezone(UTC)
        if firing > last:  # within an hour that comes twice cronsim looks at the clock on the wall only
            last = firing
            yield firing


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def checked_zone(name: Any) -> str:
    """Raises WrongTime for what is no time zone, with the nearest name."""
    if name == "UTC":
        return "UTC"
    known = available_timezones()
    if isinstance(name, str) and name in known:
        return name
    last = {each.rpartition("/")[2].lower(): each for each in sorted(known)}
    asked = str(name).rpartition("/")[2].lower()
    near = get_close_matches(str(name), known, n=1, cutoff=0.6) or [
        last[each] for each in get_close_matches(asked, last, n=1, cutoff=0.7)
    ]
    cure = f"Did you mean {near[0]!r}?" if near else 'Write a name of the tz database, like "Europe/Berlin".'
    raise WrongTime(f"there is no time zone {name!r}.", cure)


def checked_cron(cron: Any) -> str:
    """Five fields that fire some day. Raises WrongTime, with the place of what is wrong."""
    from cronsim import CronSim, CronSimError

    cure = 'Write five fields, minute hour day month weekday, like "0 7 * * MON-FRI".'
    if not isinstance(cron, str) or not cron.strip():
        raise WrongTime(f"the cron expression is {cron!r}.", cure)
    fields = cron.split()
    if len(fields) != len(FIELDS):
        cure += ' For seconds, write every="10s".' if len(fields) == 6 else ""
        raise WrongTime(f"the cron expression {cron!r} has {len(fields)} fields.", cure)
    start = datetime(2024, 1, 1, tzinfo=UTC)  # a leap year
    for place, field in enumerate(fields):
        alone = " ".join(field if each == place else "*" for each in range(len(fields)))
        try:
            CronSim(alone, start)
        except (CronSimError, ValueError, TypeError, AssertionError):
            column = _column_of(cron, place)
            wrong = f"the cron expression {cron!r} is wrong at column {column}: {field!r} is no {FIELDS[place]}."
            raise WrongTime(wrong, f"{cure} A {FIELDS[place]} is {_RANGES[place]}.") from None
    try:
        next(CronSim(cron, start))
    except (CronSimError, StopIteration):
        raise WrongTime(f"the cron expression {cron!r} never fires: no such day comes.", cure) from None
    return " ".join(fields)


_RANGES = ("0 to 59", "0 to 23", "1 to 31 or L", "1 to 12 or JAN to DEC", "0 to 7 or SUN to SAT")


def _column_of(cron: str, place: int) -> int:
    """Where a field begins, from 1."""
    return [found.start() for found in re.finditer(r"\S+", cron)][place] + 1


def seconds_of(duration: Any, what: str = "a time") -> float:
    """Seconds of a number, a timedelta, or text like "90s", "5m", "1h30m", "2d". Raises WrongTime."""
    seconds: float | None = None
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        seconds = float(duration)
    elif isinstance(duration, str) and _DURATION.fullmatch(duration.replace(" ", "")):
        seconds = sum(float(number) * UNITS[unit] for number, unit in _PART.findall(duration.replace(" ", "")))
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise WrongTime(f"{what} is {duration!r}.", 'Write seconds, or text like "90s", "5m", "1h30m", "2d".')
    return seconds


def duration_shown(seconds: float) -> str:
    """Seconds as people write them: "1h30m"."""
    if not seconds or seconds != int(seconds):
        return f"{seconds:g}s"
    left, said = int(seconds), ""
    for unit, size in reversed(UNITS.items()):
        number, left = divmod(left, int(size))
        said += f"{number}{unit}" if number else ""
    return said


def due_at(delay: Any, moment: datetime) -> datetime | None:
    """The moment that a ``delay`` means: seconds, "5m", a timedelta, or a moment with a time zone; None for at once.

    Raises WrongTime, also for more than 30 days.
    """
    if delay is None:
        return None
    if isinstance(delay, datetime):
        if delay.tzinfo is None:
            raise WrongTime(
                f"delay is {delay!r}, which has no time zone.",
                'Give it one: datetime(…, tzinfo=ZoneInfo("Europe/Berlin")).',
            )
        at = delay.astimezone(UTC)
    else:
        at = moment + timedelta(seconds=min(seconds_of(delay, "delay"), 2 * LONGEST_DELAY))
    if at > moment + timedelta(seconds=LONGEST_DELAY):
        raise WrongTime(f"delay is {delay!r}: more than 30 days.", "Let a scheduled job look each day what is due.")
    return at if at > moment else None
