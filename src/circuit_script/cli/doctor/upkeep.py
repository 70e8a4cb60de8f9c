"""What the platform does by itself: maintenance every hour, copies by plan, polls of CRMs outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from circuit_script.cli.doctor.check import Check, bad, good, warning
from circuit_script.clock import now
from circuit_script.config import Settings
from circuit_script.connectors.homes import named_homes
from circuit_script.db.pool import Connection
from circuit_script.events.chores import BACKUP, MAINTENANCE
from circuit_script.events.maintenance import EVERY
from circuit_script.events.reconcile import CHORE as RECONCILE

LATE = 3  # times its interval after which a chore is called late

_THERE = "SELECT to_regclass('circuit.upkeep') IS NOT NULL"
_CHORES = "SELECT chore, succeeded_at, failure FROM circuit.upkeep"
_OLDEST_WORKER = "SELECT min(started_at) FROM circuit.workers WHERE expires_at > now()"

_HANDLED = "SELECT EXISTS (SELECT FROM circuit.routes WHERE event IN ('afterInsert', 'afterUpdate'))"

Chore = tuple[datetime | None, str | None]


async def upkeep(connection: Connection, settings: Settings, *, working: bool) -> AsyncIterator[Check]:
    """When each chore was last done. Without a worker nobody does any, and nothing is late."""
    there = await (await connection.execute(_THERE)).fetchone()
    if not there or not there[0]:
        return
    rows = await (await connection.execute(_CHORES)).fetchall()
    chores: dict[str, Chore] = {name: (done, failure) for name, done, failure in rows}
    row = await (await connection.execute(_OLDEST_WORKER)).fetchone()
    since = row[0] if working and row else None
    yield _check(MAINTENANCE, chores.get(MAINTENANCE, (None, None)), EVERY, since)
    if settings.backup.to:
        yield _check(BACKUP, chores.get(BACKUP, (None, None)), settings.backup.seconds, since)
    else:
        cure = "Say where copies go: [backup] to in circuit.toml. Until then: circuit-script backup."
        yield warning(BACKUP, "no copies are made by plan", cure) if working else good(BACKUP, "none by plan")
    if named_homes(settings):
        yield await _reconcile(connection, settings, chores.get(RECONCILE), since)


async def _reconcile(connection: Connection, settings: Settings, chore: Chore | None, since: datetime | None) -> Check:
    """Whether CRMs outside are asked what has changed; nothing is late where there is nothing to ask for."""
    if not settings.reconcile.enabled:
        return good(RECONCILE, "switched off: webhooks that are lost are not made up for")
    row = await (await connection.execute(_HANDLED)).fetchone()
    if chore is None or not row or not row[0]:
        return good(RECONCILE, "nothing polled yet: circuit-script reconcile --dry-run shows what would be")
    return _check(RECONCILE, chore, settings.reconcile.seconds, since)


def _check(name: str, chore: Chore, every: float, since: datetime | None) -> Check:
    done, failure = chore
    said = f"last done {done:%Y-%m-%d %H:%M %Z}" if done else "not done yet"
    if failure:
        cure = "It is tried again by itself; mend what it says if it goes on."
        return (bad if name == BACKUP else warning)(name, f"{said}; then failed: {failure}", cure)
    began = max(done, since) if done and since else done or since
    if since is not None and began is not None and now() - began > timedelta(seconds=LATE * every):
        return warning(name, f"{said}, though a worker is alive", "Look at what the worker logs, and start it again.")
    return good(name, said)
