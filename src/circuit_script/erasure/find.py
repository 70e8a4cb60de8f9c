"""What belongs to a person: the record itself, and the messages, appointments and other records that hang on it.

Some of these reads go over whole tables: forgetting is rare, and an index for it would cost every event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit_script.db.pool import Connection
from circuit_script.erasure.jobs import Trim, jobs_naming
from circuit_script.erasure.naming import Named, known_by

CHUNK = 500  # rows that one transaction changes at most
CONTACT = "Contact"

OWNERS = """
SELECT DISTINCT tenant FROM (
    SELECT tenant FROM circuit.events WHERE record = %(record)s OR order_key = %(record)s
    UNION ALL SELECT tenant FROM circuit.records WHERE id = %(record)s OR contact = %(record)s
    UNION ALL SELECT tenant FROM circuit.effects WHERE record = %(record)s
    UNION ALL SELECT tenant FROM circuit.circuit_logs WHERE record = %(record)s
) AS found ORDER BY tenant
"""

_OF = "tenant = %(tenant)s"
_OF_NOBODY = "tenant IS NULL AND %(tenant)s::text IS NULL"
_OBJECT = "(%(object)s::text IS NULL OR object = %(object)s)"
_EVENTS = "SELECT delivery, ordinal, id, object, record FROM circuit.events WHERE {of} AND {which}"
_ITSELF = f"record = %(record)s AND {_OBJECT}"
_HANGS_ON = "order_key = %(record)s AND record <> %(record)s"
_RECORDS = f"SELECT object, id FROM circuit.records WHERE {{of}} AND id = %(record)s AND {_OBJECT}"
_RECORDS_OF_CONTACT = "SELECT object, id FROM circuit.records WHERE {of} AND contact = %(record)s"
_EXECUTIONS = """
SELECT o.execution, bool_and(o.delivery = ANY(%(deliveries)s)) FROM circuit.outcomes o
WHERE o.execution = ANY(ARRAY(
    SELECT execution FROM circuit.outcomes WHERE delivery = ANY(%(deliveries)s::uuid[] || %(parts)s::uuid[])))
GROUP BY o.execution
"""
# Calls of endpoints have no event: their executions are known by what they wrote or logged about the record.
_CALLS = """
SELECT o.delivery, o.execution FROM circuit.outcomes o JOIN circuit.deliveries d ON d.id = o.delivery
WHERE d.source = 'endpoint' AND d.tenant = %(tenant)s AND o.execution = ANY(ARRAY(
    SELECT execution FROM circuit.effects WHERE tenant = %(tenant)s AND record = ANY(%(records)s)
    UNION SELECT execution FROM circuit.circuit_logs WHERE tenant = %(tenant)s AND record = ANY(%(records)s)
    UNION SELECT execution FROM circuit.llm_calls WHERE tenant = %(tenant)s AND record = ANY(%(records)s)))
"""
_JOBS = """
SELECT id::text FROM circuit.effects
WHERE connector = 'jobs' AND tenant = %(tenant)s AND (execution = ANY(%(own)s) OR record = ANY(%(records)s))
"""
_JOBS_RAN = """
SELECT delivery, id FROM circuit.events
WHERE tenant = %(tenant)s AND object = 'Job' AND record = ANY(%(jobs)s)
"""
_PARTS = "SELECT id FROM circuit.events WHERE delivery = ANY(%(parts)s)"

# What a person is known by in texts that do not say the record: addresses and numbers, no names, which others may have.
# A field of that name may say something else ("mobile_since"), which others have, too: a date, or a mere domain.
_WORDS = r"""
SELECT DISTINCT m.found FROM circuit.records r JOIN unnest(%(objects)s::text[], %(ids)s::text[]) AS k (object, id)
ON r.object = k.object AND r.id = k.id, jsonb_each_text(r.data) AS f,
LATERAL (
    SELECT a[1] FROM regexp_matches(f.value, '[^\s@,;:<>()"''\[\]{}]+@[^\s@,;:<>()"''\[\]{}]+', 'g') AS a
    UNION ALL
    SELECT n[1] FROM regexp_matches(f.value, '[0-9][0-9 ()./-]{4,}[0-9]', 'g') AS n
    WHERE f.key ~* '(phone|mobile)' AND n[1] ~ '([0-9][^0-9]*){6}'
    AND n[1] !~ '^((19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}/[0-9]{1,2}/[0-9]{4})'
) AS m (found)
WHERE r.tenant = %(tenant)s AND f.key ~* '(e.?mail|phone|mobile)' AND length(f.value) < 10000
AND length(m.found) BETWEEN 6 AND 255
"""
# What was put back has replies under its new ids, too.
_AGAIN = """
SELECT id FROM circuit.requeued WHERE past = ANY(%(events)s)
UNION SELECT event FROM circuit.replay_items WHERE past = ANY(%(events)s) AND event IS NOT NULL
UNION SELECT id FROM circuit.queue WHERE past = ANY(%(events)s)
"""


@dataclass(frozen=True, slots=True)
class Person:
    """The record by which a person is known. ``tenant`` None is what belongs to no tenant; ``object`` None is every
    object with that id."""

    record: str
    tenant: str | None
    object: str | None = None


@dataclass(slots=True)
class Traces:
    """Where a person is found. ``own`` executions handled nobody else, ``shared`` ones others too; ``jobs`` were
    enqueued by the former, or are about nobody else, ``trims`` are of those about others, too, and ``parts`` their
    events; ``words`` are what the person is known by, beside the records' ids."""

    records: list[tuple[str, str]] = field(default_factory=list)
    deliveries: list[UUID] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    jobs: list[UUID] = field(default_factory=list)
    own: list[UUID] = field(default_factory=list)
    shared: list[UUID] = field(default_factory=list)
    trims: list[Trim] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return sorted({id_ for _, id_ in self.records if id_})  # an empty one would be found in every text

    @property
    def names(self) -> list[str]:
        return [name for name, _ in known_by(self.ids, self.words)]

    @property
    def patterns(self) -> list[str | None]:
        """Parallel to ``names``."""
        return [pattern for _, pattern in known_by(self.ids, self.words)]


async def owners(connection: Connection, record: str) -> list[str | None]:
    """The tenants that know a record of this id; None stands for what belongs to no tenant."""
    rows = await (await connection.execute(OWNERS, {"record": record})).fetchall()
    return [tenant for (tenant,) in rows]


async def find(connection: Connection, person: Person, before: Traces | None = None) -> Traces:
    """Everything that is to be blanked, by its keys; ``before`` is what was found when it was looked for last."""
    of = _OF_NOBODY if person.tenant is None else _OF
    about: dict[str, Any] = {"tenant": person.tenant, "record": person.record, "object": person.object}
    events = await _rows(connection, _EVENTS.format(of=of, which=_ITSELF), about)
    records = {*await _rows(connection, _RECORDS.format(of=of), about), (person.object or "", person.record)}
    if person.object in (None, CONTACT):
        events += await _rows(connection, _EVENTS.format(of=of, which=_HANGS_ON), about)
        records.update(await _rows(connection, _RECORDS_OF_CONTACT.format(of=of), about))
    records.update((object, record) for _, _, _, object, record in events)
    traces = Traces(sorted(records), sorted({row[0] for row in events}), sorted({row[2] for row in events}))
    whose = {**about, "objects": [object for object, _ in traces.records], "ids": [id_ for _, id_ in traces.records]}
    words = {word for (word,) in await _rows(connection, _WORDS, whose)}
    traces.words = sorted(words.union(before.words if before else ()))
    about["known"] = [str(job) for job in before.jobs] if before else []
    calls = await _rows(connection, _CALLS, {**about, "records": traces.ids})
    traces.deliveries += [delivery for delivery, _ in calls]
    while await _follow(connection, about, traces):
        pass
    again = await _rows(connection, _AGAIN, {"events": traces.events})
    traces.events = sorted({*traces.events, *(id_ for (id_,) in again)})
    parts = await _rows(connection, _PARTS, {"parts": _partly(traces)})
    again = await _rows(connection, _AGAIN, {"events": [id_ for (id_,) in parts]})
    traces.parts = sorted({id_ for (id_,) in (*parts, *again)})
    return traces


async def _follow(connection: Connection, about: dict[str, Any], traces: Traces) -> bool:
    """The executions of these deliveries, and the jobs that they enqueued; whether there are more deliveries now."""
    parts = _partly(traces)
    found = await _rows(connection, _EXECUTIONS, {"deliveries": traces.deliveries, "parts": parts})
    traces.own = [execution for execution, alone in found if alone]
    traces.shared = [execution for execution, alone in found if not alone]
    enqueued = await _rows(connection, _JOBS, {**about, "own": traces.own, "records": traces.ids})
    known = {*about["known"], *(job for (job,) in enqueued)}
    naming = await jobs_naming(connection, about["tenant"], Named(traces.ids, traces.words), traces.shared, known)
    theirs = known | naming.theirs
    traces.jobs, traces.trims = sorted(map(UUID, theirs)), naming.trims
    ran = await _rows(connection, _JOBS_RAN, {**about, "jobs": sorted(theirs)})
    here = set(traces.deliveries)
    more = [row for row in ran if row[0] not in here]
    traces.deliveries += [delivery for delivery, _ in more]
    traces.events += [event for _, event in more]
    return bool(more) or _partly(traces) != parts


async def moved(connection: Connection, person: Person, traces: Traces) -> bool:
    """Whether a job of theirs has come to the queue since they were looked for."""
    here = set(traces.deliveries)
    ran = await _rows(connection, _JOBS_RAN, {"tenant": person.tenant, "jobs": [str(job) for job in traces.jobs]})
    return any(delivery not in here for delivery, _ in ran)


def _partly(traces: Traces) -> list[UUID]:
    """Deliveries of jobs that are about others, too."""
    return sorted(each.id for each in traces.trims if each.table == "deliveries")


def chunks(some: Sequence[Any]) -> list[Sequence[Any]]:
    """Parts of at most CHUNK; of nothing, none."""
    return [some[start : start + CHUNK] for start in range(0, len(some), CHUNK)]


async def _rows(connection: Connection, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement.encode(), values, prepare=False)).fetchall()
