"""The database: reachable, new enough, with its roles and migrations; its clock; who works on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psycopg

from circuit_script.cli.doctor.app import supervisor_of
from circuit_script.cli.doctor.check import Check, bad, good, warning
from circuit_script.cli.doctor.see import findings, telling
from circuit_script.cli.doctor.upkeep import upkeep
from circuit_script.config import Settings
from circuit_script.db.ahead import ahead
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import OLDEST_SERVER, applied_in, read_migrations
from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.db.server_user import ServerUser, binaries
from circuit_script.errors import CircuitError, StartError

CLOCK_SLACK, CLOCK_LIMIT = 1.0, 60.0  # seconds

_SERVER = """
    SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version'),
           (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user),
           (SELECT count(*) FROM pg_roles WHERE rolname IN ('circuit_road', 'circuit_tenant')),
           to_regclass('circuit.migrations') IS NOT NULL, clock_timestamp()
"""
_WORKERS = "SELECT host, pid FROM circuit.workers WHERE expires_at > now() ORDER BY started_at"


async def database(settings: Settings) -> AsyncIterator[Check]:
    """What can be seen without changing anything: an embedded server is not started."""
    url = settings.database_url
    if url is None:
        embedded = EmbeddedPostgres(settings.folder)
        try:
            _, major = binaries(ServerUser(os.geteuid(), os.getegid(), switch=False))
            if not embedded.running():
                yield good("database", f"the embedded PostgreSQL {major}, which starts with the app")
                return
            url = embedded.running_url
        except CircuitError as error:
            yield bad("database", error.detail, error.cure)
            return
    try:
        connection = await open_connection(url, name="circuit-script doctor")
    except CircuitError as error:
        yield bad("database", error.detail, error.cure)
        return
    async with connection:
        try:
            async for check in _look(connection, settings):
                yield check
        except psycopg.Error as error:
            yield bad("database", str(error).strip(), unavailable(error).cure)


async def _look(connection: Connection, settings: Settings) -> AsyncIterator[Check]:
    row = await (await connection.execute(_SERVER)).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    major, version, may_create, roles, migrated, moment = row
    here = datetime.now(UTC)
    if major < OLDEST_SERVER:
        yield bad("database", f"It is PostgreSQL {version}.", f"Use PostgreSQL {OLDEST_SERVER} or newer.")
    else:
        yield good("database", f"PostgreSQL {version} answers")
    yield _roles(roles, bool(may_create))
    yield _clock(abs((here - moment).total_seconds()))
    if not migrated:
        yield good("migrations", "none yet: the first start makes the tables")
        return
    yield await _migrations(connection)
    workers = await (await connection.execute(_WORKERS)).fetchall()
    yield _workers(workers, supervisor_of(settings))
    async for check in upkeep(connection, settings, working=bool(workers)):
        yield check
    async for check in findings(connection, settings, working=bool(workers)):
        yield check
    async for check in telling(connection, settings):
        yield check


def _roles(present: int, may_create: bool) -> Check:
    if present == 2:
        return good("roles", "circuit_road and circuit_tenant exist")
    if may_create:
        return good("roles", "are made at the first start")
    cure = "Start the app: its error has the statements that a superuser must run."
    return bad("roles", "circuit_road and circuit_tenant are missing, and this user may not create them.", cure)


def _clock(apart: float) -> Check:
    said = f"{apart:.1f} s apart from the database's"
    cure = "Let both machines follow a time server (NTP)."
    if apart > CLOCK_LIMIT:
        return bad("clock", said, cure)
    return warning("clock", said, cure) if apart > CLOCK_SLACK else good("clock", said)


async def _migrations(connection: Connection) -> Check:
    known = read_migrations()
    try:
        applied = await applied_in(connection)
        newer = ahead(known, applied)
    except StartError as error:
        return bad("migrations", error.detail, error.cure)
    if newer:
        return warning("migrations", f"A newer version has applied {', '.join(newer)}.", "Start that one when you can.")
    if missing := len({each.name for each in known} - {each.name for each in applied}):
        return good("migrations", f"{missing} to apply at the next start")
    return good("migrations", f"all {len(known)} applied")


def _workers(rows: list[tuple[str, int]], supervisor: int) -> Check:
    if rows:
        return good("worker", ", ".join(f"process {pid} on {host.partition(' ')[0]} is alive" for host, pid in rows))
    if supervisor:
        cure = "Look at what the app printed: its worker ends or does not start."
        return bad("worker", "The app runs, but no worker is alive.", cure)
    return good("worker", "none is running: start the app with circuit-script dev")
