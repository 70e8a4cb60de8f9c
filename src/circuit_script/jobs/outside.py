"""Enqueues from outside of the platform: for the command line and for an author's scripts. Made at once."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from circuit_script.clock import uuid7
from circuit_script.config import FILE, load_settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import Connection, open_connection, unavailable
from circuit_script.execution.authoring.jobs import check_takes, check_values, refused, unknown_cure
from circuit_script.execution.outcome import JobSpec
from circuit_script.jobs.store import NewJob, Taken, body_of, take_in_jobs

TENANT = "default"
JOBS = """
SELECT h ->> 'name', h -> 'job' FROM circuit.live l JOIN circuit.releases r ON r.id = l.release,
       jsonb_array_elements(r.manifest) AS h WHERE jsonb_typeof(h -> 'job') = 'object'
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for from outside. ``due`` is in seconds since 1970; ``said`` are arguments as they were typed:
    text for what the job declares as ``str``, else JSON where it can be read as such."""

    job: str
    arguments: Mapping[str, Any]
    due: float | None = None
    unique: str | None = None
    tenant: str = TENANT
    by: str = ""
    said: Mapping[str, str] = field(default_factory=dict)

    def given(self, spec: JobSpec) -> dict[str, Any]:
        """All arguments."""
        typed = {name: text if name in spec.texts else _json_or(text) for name, text in self.said.items()}
        return {**self.arguments, **typed}


async def live_jobs(connection: Connection) -> dict[str, JobSpec]:
    """The jobs of the live release, by name. Raises psycopg.Error."""
    rows = await (await connection.execute(JOBS)).fetchall()
    return {name: msgspec.convert(job, JobSpec) for name, job in rows}


async def enqueue_now(connection: Connection, asked: Asked) -> Taken:
    """Check it against the live release and commit it. Raises RequestRefused, DatabaseUnavailable."""
    try:
        known = await live_jobs(connection)
        if (spec := known.get(asked.job)) is None:
            raise refused(f"the live release has no job {asked.job!r}.", unknown_cure(asked.job, list(known)))
        arguments = asked.given(spec)
        check_takes(asked.job, spec, arguments)
        check_values(asked.job, arguments)
        id_ = uuid7()
        due = None if asked.due is None else datetime.fromtimestamp(asked.due, UTC)
        body = body_of(id_, asked.job, arguments, enqueued_by=asked.by or whoever())
        (taken,) = await take_in_jobs(
            connection, [NewJob(id_, asked.tenant, asked.job, body, due=due, unique=asked.unique)]
        )
    except psycopg.Error as error:
        raise unavailable(error) from error
    return taken


async def enqueue_here(asked: Mapping[str, Any]) -> str:
    """What ``circuit_script.enqueue`` does in a script: for the app of this folder, or of one above it.

    Raises RequestRefused, ConfigError, NotRunning, DatabaseUnavailable.
    """
    here = Path.cwd()
    folder = next((each for each in (here, *here.parents) if (each / FILE).is_file()), here)
    settings = load_settings(folder)
    url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
    connection = await open_connection(url, name="circuit-script enqueue")
    try:
        taken = await enqueue_now(connection, Asked(asked["job"], asked["arguments"], asked["due"], asked["unique"]))
    finally:
        await connection.close()
    return str(taken.id)


def _json_or(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def whoever() -> str:
    """The user of this process, who did it by hand."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
