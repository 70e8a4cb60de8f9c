"""Quiet hours: when somebody may sleep, by the clock on the wall there."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from circuit_script.settings_see import QuietSettings


def quiet_until(quiet: QuietSettings, moment: datetime) -> datetime | None:
    """The end of the quiet hours in which ``moment`` lies; None when it lies in none. They may go over midnight."""
    if not quiet.start or not quiet.end or quiet.start == quiet.end:
        return None
    zone = ZoneInfo(quiet.timezone)
    start, end = time.fromisoformat(quiet.start), time.fromisoformat(quiet.end)
    local = moment.astimezone(zone)
    present = local.time()
    inside = start <= present < end if start < end else present >= start or present < end
    if not inside:
        return None
    day = local.date() if present < end else local.date() + timedelta(days=1)
    return datetime.combine(day, end, zone).astimezone(UTC)
