"""While nothing can be seen: what is told then, from memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import psycopg
from psycopg_pool import PoolTimeout

from circuit_script.telemetry.alerts.alert import Alert, Told
from circuit_script.telemetry.alerts.words import harmless

STUCK = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
GONE = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, OSError)


@dataclass(slots=True)
class Blind:
    """When something was ``seen`` last, by the monotonic clock; and the alert, once there is one."""

    seen: float = field(default_factory=time.monotonic)
    alert: Alert | None = None

    def told(self, channel: str, told: Told) -> None:
        """That channel knows of it."""
        if self.alert is not None:
            self.alert = replace(self.alert, told={**self.alert.told, channel: told})


def blindness(error: Exception, now: datetime, seconds: float) -> Alert:
    """The alert that for so many seconds nothing could be seen, because of that."""
    match error:
        case psycopg.Error() if isinstance(error, STUCK):
            key, what = "monitor", "The alerts' own tables do not answer (are they locked?): nobody is told of anything"
        case _ if isinstance(error, GONE):
            key, what = (
                "database",
                "The database does not answer: nothing runs, and deliveries are refused until it does",
            )
        case _:
            said = f"{type(error).__name__}: {harmless(str(error))}"
            key, what = "monitor", f"The monitor fails: nobody is told of anything; {said}"
    since = now - timedelta(seconds=seconds)
    return Alert(
        id=0,
        key=key,
        rule="guardian" if key == "database" else "monitor",
        severity="critical",
        tenant=None,
        part_of=None,
        what=what,
        hits=(),
        handlers=(),
        next="circuit-script doctor",
        link="",
        size=0.0,
        since=since,
        last=now,
    )
