"""The connector of jobs: an enqueued job is an effect, which the courier delivers to our own queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import psycopg
import structlog

from circuit_script.connectors.connector import Delivered, Delivery, Effect, InDoubt, Later, Operation, Refused
from circuit_script.db.pool import Pool
from circuit_script.errors import DatabaseUnavailable
from circuit_script.execution.outcome import JOBS
from circuit_script.jobs.store import NewJob, body_of, holder_of, take_in_jobs

BULK = 50  # in one transaction, which intake waits for
TIMEOUT = 15.0
BODIES = "SELECT id, body FROM circuit.deliveries WHERE id = ANY(%s)"

log = structlog.get_logger()


class JobsConnector:
    """Delivers to the queue, each job once however often it is sent: its effect's id is its own."""

    name = JOBS
    operations: Mapping[str, Operation] = {
        "enqueue": Operation(InDoubt.REPEAT, BULK, TIMEOUT, irreversible=True),
        "finalize": Operation(InDoubt.REPEAT, BULK, TIMEOUT),
    }

    def __init__(self, database: Pool) -> None:
        self._database = database

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        try:
            async with self._database.connection() as connection:
                if operation == "finalize":
                    ended = [each for each in map(_delivery, effects) if each is not None]
                    found = await (await connection.execute(BODIES, [ended])).fetchall()
                    bodies = {id_: bytes(body) for id_, body in found}
                    made = [_made(lambda effect: _finalizer(effect, bodies), each) for each in effects]
                else:
                    made = [_made(_enqueued, each) for each in effects]
                jobs = [each for each in made if isinstance(each, NewJob)]
                taken = await take_in_jobs(connection, jobs) if jobs else []
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            return [Later(f"the database is away: {error}")] * len(effects)
        for job, each in zip(jobs, taken, strict=True):
            if each.kind == "held":
                log.info("job.unique", job=job.name, key=job.unique, waits=str(each.id), next="no second one is made")
        return [each if isinstance(each, Refused) else Delivered() for each in made]

    async def holder(self, tenant: str, name: str, key: str) -> str | None:
        """The job that waits or runs with this key. Raises DatabaseUnavailable."""
        try:
            async with self._database.connection() as connection:
                found = await holder_of(connection, tenant, name, key)
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            raise DatabaseUnavailable(str(error)) from error
        return None if found is None else str(found)


def _made(make: Callable[[Effect], NewJob], effect: Effect) -> NewJob | Refused:
    """The job; where its effect was edited, or what it is about forgotten, it may be none, and keeps no other of its
    bulk from the queue."""
    try:
        job = make(effect)
        if (type(job.depth), type("" if job.unique is None else job.unique)) != (int, str):  # nobody has looked at them
            raise TypeError("depth is a number, and unique a text")
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, OSError, msgspec.MsgspecError) as error:
        return Refused(f"it is no job: {type(error).__name__}: {error}")
    return job


def _enqueued(effect: Effect) -> NewJob:
    asked, due = effect.payload, effect.payload.get("due")
    return NewJob(
        id=effect.id,
        tenant=effect.tenant,
        name=effect.target,
        body=body_of(
            effect.id,
            effect.target,
            asked.get("arguments") or {},
            enqueued_by=asked.get("by"),
            execution=asked.get("execution"),
            traceparent=effect.traceparent,
        ),
        depth=effect.depth,
        due=None if due is None else datetime.fromtimestamp(due, UTC),
        unique=asked.get("unique"),
    )


def _delivery(effect: Effect) -> UUID | None:
    try:
        return UUID(effect.payload["delivery"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _finalizer(effect: Effect, bodies: Mapping[UUID, bytes]) -> NewJob:
    """The finalizer of a job gets its arguments, and what became of it. It stands where the job stood in its chain."""
    body = bodies.get(UUID(effect.payload["delivery"]))
    ended = {key: value for key, value in effect.payload.items() if key not in ("delivery", "depth")}
    of = {} if body is None else msgspec.json.decode(body)["data"]
    said = {**(of.get("job") or {}), **ended}
    said.pop("traceparent", None)  # it goes on with the trace of the job's last execution
    return NewJob(
        id=effect.id,
        tenant=effect.tenant,
        name=effect.target,
        body=body_of(effect.id, effect.target, of.get("arguments") or {}, **said, traceparent=effect.traceparent),
        depth=effect.payload["depth"],
    )
