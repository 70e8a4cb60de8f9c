"""Forget one person: remember that they are forgotten, take what waits off the queue, and blank the rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from circuit_script.clock import uuid7
from circuit_script.db.pool import Connection
from circuit_script.erasure.blank import (
    CANCEL,
    COUNT_LATEST,
    COUNT_RECORDS,
    LATEST,
    RECORDS,
    RESOLVE,
    STEPS,
    WAITING,
)
from circuit_script.erasure.find import Person, Traces, chunks, find, moved
from circuit_script.erasure.jobs import TRIM

LISTS = ("ids", "names", "patterns", "deliveries", "events", "own", "shared", "jobs", "parts")
# One salt for all: a hash can then be looked for in one pass over a copy.
_REMEMBER = """
INSERT INTO circuit.forgets (tenant, object, salt, hash, by_whom)
SELECT %(tenant)s, %(object)s, s.salt, circuit.forget_hash(s.salt, %(tenant)s, %(record)s), %(by)s
FROM (SELECT coalesce((SELECT salt FROM circuit.forgets ORDER BY id LIMIT 1),
                      uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS salt) AS s
RETURNING id
"""
_REPORT = "UPDATE circuit.forgets SET blanked = %s WHERE id = %s"
_PATIENCE = "SET LOCAL lock_timeout = '30s'"
_AGAIN = 0.05  # seconds
_ROUNDS = 5  # as often at most it is looked again for jobs that went on meanwhile


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was blanked, in rows per table; with ``dry_run`` what would be. ``records`` are the ones that were found:
    the person's own, and those that hang on it."""

    record: str
    tenant: str | None
    dry_run: bool
    records: list[str]
    blanked: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.blanked.values())


async def forget(
    connection: Connection, person: Person, by: str, *, dry_run: bool = False, remember: bool = True
) -> Forgotten:
    """Blank everything about a person, in short transactions; ``by`` is who asked. Without ``remember`` the list of
    who was forgotten stays as it is.

    It can be repeated: whatever an earlier try left, or what came since, is blanked then. Needs an autocommit
    connection, or one transaction around it all. Raises psycopg.Error.
    """
    number = await _remember(connection, person, by) if remember and not dry_run else None
    traces = await find(connection, person)
    if dry_run:
        blanked = await _count(connection, person, traces)
    else:
        blanked, missed = await _blank(connection, person, traces)
        for _ in range(_ROUNDS):
            if not missed and not await moved(connection, person, traces):
                break
            traces = await find(connection, person, traces)
            more, missed = await _blank(connection, person, traces)
            blanked += more
    found = {table: n for table, n in sorted(blanked.items()) if n}
    if number is not None:
        await connection.execute(_REPORT, [Jsonb({"done": True, **found}), number])
    return Forgotten(person.record, person.tenant, dry_run, [f"{o} {i}".strip() for o, i in traces.records], found)


async def _remember(connection: Connection, person: Person, by: str) -> int:
    """First of all: what is cut short is then known to be unfinished."""
    about = {"tenant": person.tenant, "object": person.object, "record": person.record, "by": by}
    row = await (await connection.execute(_REMEMBER, about)).fetchone()
    assert row is not None  # RETURNING of one insert
    return int(row[0])


async def _blank(connection: Connection, person: Person, traces: Traces) -> tuple[Counter[str], bool]:
    """How many rows of each table, and whether a job was not any more what it was when it was found."""
    missed = False
    blanked: Counter[str] = Counter()
    values = _values(person, traces)
    # Row by row: whoever settles a batch locks many of them, and nobody may wait for somebody who waits for him.
    for id_, handler in await (await connection.execute(WAITING, values, prepare=False)).fetchall():
        row = {"id": id_, "handler": handler, "execution": uuid7()}
        blanked["queue"] += await _change(connection, CANCEL, row)
    for each in traces.trims:
        row = {"id": each.id, "was": each.was, "now": each.now}
        trimmed = await _change(connection, TRIM[each.table], row)
        blanked[each.table] += trimmed
        missed = missed or not trimmed
    for part in chunks(traces.deliveries):
        blanked["latest"] += await _change(connection, LATEST, {"deliveries": part})
    for step in STEPS:
        for part in chunks(values[step.by]):
            blanked[step.table] += await _change(connection, step.statement, {**values, step.by: part})
    for some in chunks(traces.records):
        objects, ids = [object for object, _ in some], [id_ for _, id_ in some]
        blanked["records"] += await _change(connection, RECORDS, {**values, "objects": objects, "ids": ids})
    await connection.execute(RESOLVE.encode(), values, prepare=False)
    return blanked, missed


async def _count(connection: Connection, person: Person, traces: Traces) -> Counter[str]:
    """As _blank, and changes nothing. A row that two steps would find is counted once."""
    found: Counter[str] = Counter()
    values = _values(person, traces)
    waiting = await (await connection.execute(WAITING, values, prepare=False)).fetchall()
    found["queue"] = len(waiting)
    objects, ids = [object for object, _ in traces.records], [id_ for _, id_ in traces.records]
    found["records"] = await _number(connection, COUNT_RECORDS, {**values, "objects": objects, "ids": ids})
    found["latest"] = await _number(connection, COUNT_LATEST, values)
    found.update(each.table for each in traces.trims)
    for table in dict.fromkeys(step.table for step in STEPS):
        either = " OR ".join(f"({step.where})" for step in STEPS if step.table == table)
        found[table] += await _number(connection, f"SELECT count(*) FROM circuit.{table} WHERE {either}", values)
    return found


def _values(person: Person, traces: Traces) -> dict[str, Any]:
    return {"tenant": person.tenant, **{name: getattr(traces, name) for name in LISTS}}


async def _change(connection: Connection, statement: str, values: Mapping[str, Any]) -> int:
    while True:
        try:
            async with connection.transaction():
                await connection.execute(_PATIENCE)
                return max(0, (await connection.execute(statement.encode(), values, prepare=False)).rowcount)
        except psycopg.errors.DeadlockDetected:  # with a worker, which locks these rows in another order
            await asyncio.sleep(_AGAIN)


async def _number(connection: Connection, statement: str, values: Mapping[str, Any]) -> int:
    row = await (await connection.execute(statement.encode(), values, prepare=False)).fetchone()
    assert row is not None  # count(*) has one row
    return int(row[0])
