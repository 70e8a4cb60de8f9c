"""Jobs that name a person: those about nobody else go, and the others go on without them.

A job is about others, too, when it names the person in a list, or under a key of their own, beside others: that element
leaves, and the rest stays. Lists of one length beside each other are taken for parallel: the element of that place
leaves them all. A list in a list is taken for a row, of which nothing stays. A job that names them in any other place
is about them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.db.pool import Connection
from circuit_script.erasure.blank import WORD
from circuit_script.erasure.naming import Named

_NAMED = (
    "(EXISTS (SELECT 1 FROM unnest(%(ids)s::text[]) AS i WHERE strpos({text}, to_json(i)::text) > 0) "
    "OR EXISTS (SELECT 1 FROM unnest(%(words)s::text[]) AS i WHERE strpos(lower({text}), lower(i)) > 0))"
)
# What executions of others, too, have enqueued; what waits for its moment or in the queue, whoever enqueued it.
_FOUND = f"""
SELECT CASE WHEN e.status IN ('pending', 'in_doubt') THEN 'effects' END,
       e.id, e.id::text, convert_to(e.payload::text, 'UTF8'), e.payload ->> 'unique'
FROM circuit.effects e
WHERE e.connector = 'jobs' AND e.tenant = %(tenant)s AND e.execution = ANY(%(shared)s) AND e.record IS NULL
AND {_NAMED.format(text="e.payload::text")}
UNION ALL SELECT 'delayed_jobs', j.id, j.id::text, j.body, j.unique_key FROM circuit.delayed_jobs j
WHERE j.tenant = %(tenant)s
AND {_NAMED.format(text="(convert_from(j.body, 'UTF8') || coalesce(to_json(j.unique_key)::text, ''))")}
UNION ALL SELECT 'deliveries', d.id, v.record, d.body, NULL
FROM circuit.deliveries d JOIN circuit.events v ON v.delivery = d.id
WHERE d.source = 'circuit' AND d.tenant = %(tenant)s AND v.object = 'Job' AND d.id = ANY(ARRAY(
    SELECT q.delivery FROM circuit.queue q WHERE q.object = 'Job' AND q.tenant = %(tenant)s
    UNION SELECT r.delivery FROM circuit.events r
    WHERE r.object = 'Job' AND r.tenant = %(tenant)s AND r.record = ANY(ARRAY(
        SELECT e.id::text FROM circuit.effects e
        WHERE e.connector = 'jobs' AND e.tenant = %(tenant)s AND e.execution = ANY(%(shared)s)))))
AND {_NAMED.format(text="convert_from(d.body, 'UTF8')")}
"""
# Only what is as it was read, and has not left: an effect that has is blanked, as every effect.
TRIM = {
    "effects": "UPDATE circuit.effects SET payload = convert_from(%(now)s, 'UTF8')::jsonb WHERE id = %(id)s "
    "AND payload = convert_from(%(was)s, 'UTF8')::jsonb AND status IN ('pending', 'in_doubt')",
    "delayed_jobs": "UPDATE circuit.delayed_jobs SET body = %(now)s WHERE id = %(id)s AND body = %(was)s",
    "deliveries": "UPDATE circuit.deliveries SET body = %(now)s WHERE id = %(id)s AND body = %(was)s",
}


@dataclass(frozen=True, slots=True)
class Trim:
    """A job that goes on without the person: where it stands, and what its row says then."""

    table: str
    id: UUID
    was: bytes
    now: bytes


@dataclass(frozen=True, slots=True)
class Jobs:
    """``theirs`` are the ids of jobs that are about the person alone."""

    theirs: set[str]
    trims: list[Trim]


async def jobs_naming(
    connection: Connection, tenant: str | None, named: Named, shared: Collection[UUID], known: Collection[str]
) -> Jobs:
    """The jobs that name the person, but for those whose ids are ``known`` to be theirs. Raises psycopg.Error."""
    values = {"tenant": tenant, "ids": named.ids, "words": named.words, "shared": list(shared)}
    rows = await (await connection.execute(_FOUND.encode(), values, prepare=False)).fetchall()
    theirs: set[str] = set()
    trims: dict[str, list[Trim]] = {}
    for table, id_, job, was, unique in rows:
        now = None if unique is not None and named(unique) else _without(bytes(was), named)
        if now is None:
            theirs.add(job)
        elif table is not None and now != bytes(was):
            trims.setdefault(job, []).append(Trim(table, id_, bytes(was), now))
    return Jobs(
        theirs, [each for job, some in trims.items() if job not in theirs and job not in known for each in some]
    )


def _without(text: bytes, named: Named) -> bytes | None:
    """A job as it goes on without whom it names; None when there is nobody else in it, the same when it is unnamed."""
    job = msgspec.json.decode(text)
    holder = job.get("data") or job  # of a delivery, or of an effect
    arguments = holder.get("arguments", holder)
    try:
        rest = _rest(arguments, named)
    except RecursionError:
        return None
    if rest is None or "arguments" not in holder:
        return None if rest != arguments else text
    return text if rest == arguments else msgspec.json.encode(_with(job, rest, named))


def _with(job: Mapping[str, Any], arguments: Any, named: Named) -> dict[str, Any]:
    if "data" not in job:
        return {**job, "arguments": arguments}
    about = job["data"].get("job")
    if isinstance(about, dict) and isinstance(why := about.get("reason"), str) and named.within(why):  # a finalizer's
        about = {**about, "reason": WORD}
    return {**job, "data": {**job["data"], "arguments": arguments, "job": about}}


def _rest(value: Any, named: Named) -> Any:
    """What is left of it without the elements of lists, and the entries, that name somebody; None for nothing."""
    if isinstance(value, str):
        return None if named(value) else value
    if isinstance(value, list):  # in a list
        left = _places(value, named)
        return list(left.values()) if len(left) == len(value) else None
    if isinstance(value, dict):
        return _entries(value, named)
    return value


def _entries(value: Mapping[str, Any], named: Named) -> dict[str, Any] | None:
    kept = {key: each for key, each in value.items() if not named(key)}
    left = {key: _places(each, named) for key, each in kept.items() if isinstance(each, list)}
    gone: dict[int, set[int]] = {}  # by the lengths of lists
    for key, places in left.items():
        gone.setdefault(len(kept[key]), set()).update(set(range(len(kept[key]))) - places.keys())
    rests: dict[str, Any] = {}
    for key, each in kept.items():
        if isinstance(each, list):
            stays = [rest for place, rest in left[key].items() if place not in gone[len(each)]]
            rests[key] = stays if stays or not each else None
        else:
            rests[key] = _rest(each, named)
    lost = any(rest is None and kept[key] is not None for key, rest in rests.items())
    return None if lost or (value and not rests) else rests


def _places(values: Sequence[Any], named: Named) -> dict[int, Any]:
    """By their places, what is left of the elements of which anything is."""
    rests = ((place, each, _rest(each, named)) for place, each in enumerate(values))
    return {place: rest for place, each, rest in rests if rest is not None or each is None}
