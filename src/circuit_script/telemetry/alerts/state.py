"""Alerts in the database: which worker looks, what is open, and who was told of it.

One worker of all holds the lease. What it finds is written in a transaction that renews it, so that a worker that stood
still and was followed by another one changes nothing any more; who was told by then is a fact, and always written.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from psycopg.rows import dict_row

from circuit_script.db.pool import Connection
from circuit_script.telemetry.alerts.alert import SEVERITIES, Alert, Told
from circuit_script.telemetry.alerts.look import Mute
from circuit_script.telemetry.alerts.rules import Judged, Signal

LEASE = 10.0  # seconds that another worker waits for one that says nothing
CLEAR = timedelta(seconds=60)  # for which something is gone before it is over: what comes and goes is told once
SEEN = timedelta(seconds=15)  # how far behind `last` may be
KEEP = timedelta(days=400)

_BRIEFLY = "SET LOCAL statement_timeout = '4s'"
_LEASE = """
INSERT INTO circuit.monitor AS m (owner, until) VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (only_row) DO UPDATE SET owner = excluded.owner, until = excluded.until
WHERE m.owner = %(owner)s OR m.owner IS NULL OR m.until < clock_timestamp()
"""
_RELEASE = "UPDATE circuit.monitor SET owner = NULL, until = '-infinity' WHERE owner = %s"
_LOAD = "SELECT * FROM circuit.alerts WHERE NOT settled ORDER BY id"
_FIELDS = "key, rule, severity, tenant, part_of, what, hits, handlers, next, link, size"
_TYPES = """key text, rule text, severity text, tenant text, part_of text, what text, hits jsonb, handlers text[],
    next text, link text, size float8"""
_NEW = f"""
INSERT INTO circuit.alerts ({_FIELDS}, since, last, silenced_by, silenced_until)
SELECT n.*, %(now)s, %(now)s, s.silenced_by, s.silenced_until
FROM jsonb_to_recordset(%(signals)s::jsonb) AS n ({_TYPES})
LEFT JOIN LATERAL (
    SELECT a.silenced_by, a.silenced_until FROM circuit.alerts a WHERE a.key = n.key ORDER BY a.id DESC LIMIT 1
) s ON s.silenced_until > %(now)s
ON CONFLICT (key) WHERE resolved IS NULL DO NOTHING
"""
_SEEN = f"""
UPDATE circuit.alerts a SET severity = n.severity, part_of = n.part_of, what = n.what, hits = n.hits,
    handlers = n.handlers, next = n.next, link = n.link, size = n.size, last = %(now)s
FROM jsonb_to_recordset(%(signals)s::jsonb) AS n ({_TYPES}) WHERE a.key = n.key AND a.resolved IS NULL
"""
_OVER = "UPDATE circuit.alerts SET resolved = %s WHERE id = ANY(%s)"
_SETTLED = "UPDATE circuit.alerts SET settled = true WHERE id = ANY(%s)"
_TOLD = """
UPDATE circuit.alerts a SET told = a.told || n.told
FROM jsonb_to_recordset(%s::jsonb) AS n (id bigint, told jsonb) WHERE a.id = n.id
"""
_HISTORY = f"""
INSERT INTO circuit.alerts ({_FIELDS}, since, last, resolved, told)
SELECT n.*, %(since)s, %(now)s, %(now)s, %(told)s::jsonb FROM jsonb_to_recordset(%(signals)s::jsonb) AS n ({_TYPES})
"""
_CHANNEL = """
INSERT INTO circuit.alert_channels AS c (channel, told_at, failed_at, failure, failures)
VALUES (%(channel)s, %(told_at)s, %(failed_at)s, %(failure)s, %(one)s)
ON CONFLICT (channel) DO UPDATE SET told_at = coalesce(excluded.told_at, c.told_at), failed_at = excluded.failed_at,
    failure = excluded.failure, failures = CASE WHEN excluded.failed_at IS NULL THEN 0 ELSE c.failures + 1 END
"""
_MUTE = (
    "SELECT channel, failures, failure FROM circuit.alert_channels WHERE failures > 0 AND channel = ANY(%s) ORDER BY 1"
)
_SWEEP = "DELETE FROM circuit.alerts WHERE settled AND resolved < %s"
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look changes: what is new, what is to be written of open alerts, and what is over."""

    new: tuple[Signal, ...]
    seen: tuple[Signal, ...]
    over: tuple[Alert, ...]

    @classmethod
    def between(cls, alerts: Iterable[Alert], judged: Judged, now: datetime) -> Changes:
        """Of what was open and what is wrong now."""
        is_open = {each.key: each for each in alerts if each.resolved is None}
        signals = {each.key: each for each in judged.signals}
        seen = [
            signal
            for key, signal in signals.items()
            if (alert := is_open.get(key)) is not None and _is_news(alert, signal, now)
        ]
        over = [
            each
            for key, each in is_open.items()
            if key not in signals and each.rule not in judged.unknown and _since(each.last, now) >= CLEAR
        ]
        return cls(tuple(each for key, each in signals.items() if key not in is_open), tuple(seen), tuple(over))


def _is_news(alert: Alert, signal: Signal, now: datetime) -> bool:
    """Whether it is to be written. What gets less severe is believed when it has been so for a while."""
    if SEVERITIES.index(signal.severity) < SEVERITIES.index(alert.severity):
        return _since(alert.last, now) >= CLEAR
    return _since(alert.last, now) >= SEEN or not _same(alert, signal)


def _since(moment: datetime, now: datetime) -> timedelta:
    """How far apart they are: what lies ahead was written by a clock that has been set back since."""
    return abs(now - moment)


def _same(alert: Alert, signal: Signal) -> bool:
    """Whether there is nothing new that somebody may have to be told."""
    return (alert.severity, alert.part_of, alert.size) == (signal.severity, signal.part_of, signal.size)


class Lost(Exception):
    """Another worker looks now."""


@contextlib.asynccontextmanager
async def briefly(connection: Connection) -> AsyncIterator[None]:
    """A transaction whose statements do not wait for ever, as for a table that somebody has locked."""
    async with connection.transaction():
        await connection.execute(_BRIEFLY)
        yield


class AlertState:
    """The rows of one monitor, known by its ``owner``."""

    def __init__(self, owner: UUID) -> None:
        self.owner = owner
        self._renewed = 0.0  # monotonic

    async def lease(self, connection: Connection) -> bool:
        """Take or renew the lease; False while another worker holds it."""
        values = {"owner": self.owner, "lease": LEASE}
        async with briefly(connection):
            taken = bool((await connection.execute(_LEASE.encode(), values)).rowcount)
        if taken:
            self._renewed = time.monotonic()
        return taken

    async def keep(self, connection: Connection) -> None:
        """Renew the lease in the midst of what may take long, when it is time. Raises Lost."""
        if time.monotonic() - self._renewed >= LEASE / 5 and not await self.lease(connection):
            raise Lost

    async def release(self, connection: Connection) -> None:
        """Let another worker look at once."""
        async with briefly(connection):
            await connection.execute(_RELEASE, [self.owner])

    @contextlib.asynccontextmanager
    async def writing(self, connection: Connection) -> AsyncIterator[None]:
        """A transaction of who holds the lease. Raises Lost."""
        async with connection.transaction():
            if not await self.lease(connection):
                raise Lost
            yield

    async def load(self, connection: Connection) -> list[Alert]:
        """Alerts that are open, and those that are over with somebody still to be told."""
        async with briefly(connection), connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_LOAD)
            rows = await cursor.fetchall()
        return [Alert.of_row({name: value for name, value in row.items() if name != "settled"}) for row in rows]

    async def write(self, connection: Connection, changes: Changes, now: datetime) -> None:
        async with self.writing(connection):
            if changes.new:
                await connection.execute(_NEW.encode(), {"signals": _rows(changes.new), "now": now})
            if changes.seen:
                await connection.execute(_SEEN.encode(), {"signals": _rows(changes.seen), "now": now})
            if changes.over:
                await connection.execute(_OVER, [now, [each.id for each in changes.over]])

    async def settle(self, connection: Connection, alerts: Sequence[Alert]) -> None:
        """Nothing is left to tell of these."""
        if alerts:
            async with self.writing(connection):
                await connection.execute(_SETTLED, [[each.id for each in alerts]])

    async def hold(self, connection: Connection, channel: str, held: Mapping[int, Told]) -> None:
        """What the channel is to be told later, by the alerts' ids."""
        if held:
            async with self.writing(connection):
                await connection.execute(_TOLD, [_told_rows(channel, held)])

    async def told(self, connection: Connection, channel: str, said: Mapping[int, Told]) -> None:
        """What the channel knows now, by the alerts' ids: true whoever holds the lease by now."""
        if said:
            async with briefly(connection):
                await connection.execute(_TOLD, [_told_rows(channel, said)])

    async def remember(self, connection: Connection, alert: Alert, now: datetime) -> None:
        """Something that is over and could not be written while it lasted: who looks tells so to those who know."""
        told = _encoder.encode({channel: _told(each) for channel, each in alert.told.items()}).decode()
        values = {"signals": _rows([_signal(alert)]), "since": alert.since, "now": now, "told": told}
        async with briefly(connection):
            await connection.execute(_HISTORY.encode(), values)

    async def reached(self, connection: Connection, channel: str, now: datetime, failure: str = "") -> None:
        """A channel was told, or could not be."""
        values = {
            "channel": channel,
            "told_at": None if failure else now,
            "failed_at": now if failure else None,
            "failure": failure or None,
            "one": 1 if failure else 0,
        }
        async with briefly(connection):
            await connection.execute(_CHANNEL, values)

    async def sweep(self, connection: Connection, now: datetime) -> None:
        """Delete what was over long ago."""
        async with briefly(connection):
            await connection.execute(_SWEEP, [now - KEEP])


async def mute(connection: Connection, channels: Sequence[str]) -> list[Mute]:
    """Those of the channels that cannot be told."""
    async with briefly(connection):
        rows = await (await connection.execute(_MUTE, [list(channels)])).fetchall()
    return [Mute(channel, failures, failure or "") for channel, failures, failure in rows]


def _rows(signals: Sequence[Signal]) -> str:
    rows = [{**asdict(each), "hits": [[hit.tenant, hit.said] for hit in each.hits]} for each in signals]
    return _encoder.encode(rows).decode()


def _signal(alert: Alert) -> Signal:
    return Signal(key=alert.key, rule=alert.rule, severity=alert.severity, what=alert.what, next=alert.next)


def _told_rows(channel: str, said: Mapping[int, Told]) -> str:
    rows = [{"id": id_, "told": {channel: _told(each)}} for id_, each in said.items()]
    return _encoder.encode(rows).decode()


def _told(told: Told) -> dict[str, Any]:
    return {
        "at": told.at.isoformat() if told.at else None,
        "severity": told.severity,
        "size": told.size,
        "held": told.held.isoformat() if told.held else None,
        "over": told.over.isoformat() if told.over else None,
    }
