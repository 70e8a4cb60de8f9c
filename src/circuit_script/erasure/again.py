"""The list of who was forgotten, and forgetting them again in data that is older than that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from circuit_script.db.pool import Connection
from circuit_script.erasure.find import Person
from circuit_script.erasure.forget import Forgotten, forget

_LIST = "SELECT tenant, object, salt, hash, at, by_whom, blanked ? 'done' FROM circuit.forgets ORDER BY id"
_KNOWN = """
SELECT DISTINCT tenant, record FROM (
    SELECT tenant, record FROM circuit.events
    UNION ALL SELECT tenant, order_key FROM circuit.events
    UNION ALL SELECT tenant, id FROM circuit.records
    UNION ALL SELECT tenant, contact FROM circuit.records WHERE contact IS NOT NULL
    UNION ALL SELECT tenant, record FROM circuit.effects WHERE record IS NOT NULL
    UNION ALL SELECT tenant, record FROM circuit.dead_letters WHERE record IS NOT NULL
    UNION ALL SELECT tenant, record FROM circuit.circuit_logs WHERE record IS NOT NULL
) AS known
"""
# Each record is hashed once per salt, and not once per entry. A hash is of the tenant, too.
_FOUND = f"""
WITH f AS MATERIALIZED (
    SELECT * FROM unnest(%(salts)s::bytea[], %(hashes)s::bytea[]) WITH ORDINALITY AS f (salt, hash, place)),
k AS MATERIALIZED (
    SELECT s.salt, known.tenant, known.record, circuit.forget_hash(s.salt, known.tenant, known.record) AS hash
    FROM (SELECT DISTINCT salt FROM f) AS s CROSS JOIN ({_KNOWN}) AS known)
SELECT f.place, k.tenant, k.record FROM k JOIN f USING (salt, hash) ORDER BY f.place
"""
_KEEP = """
INSERT INTO circuit.forgets (tenant, object, salt, hash, at, by_whom, blanked)
SELECT %s, %s, %s, %s, %s, %s, %s::jsonb
WHERE NOT EXISTS (SELECT 1 FROM circuit.forgets f WHERE f.hash = %s AND f.at = %s)
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One entry of the list. ``done`` is false while it is being blanked, or when that was cut short."""

    tenant: str | None
    object: str | None
    salt: bytes
    hash: bytes
    at: datetime
    by: str
    done: bool


async def remembered(connection: Connection) -> list[Remembered]:
    """Who was forgotten in this database, in the order in which they were; none where it is too old to have a list."""
    row = await (await connection.execute("SELECT to_regclass('circuit.forgets') IS NOT NULL")).fetchone()
    if not row or not row[0]:
        return []
    rows = await (await connection.execute(_LIST)).fetchall()
    return [Remembered(t, o, bytes(salt), bytes(hash_), at, by, done) for t, o, salt, hash_, at, by, done in rows]


def hashes_match(entry: Remembered, tenant: str | None, record: str) -> bool:
    """Whether the entry is of this record."""
    text = entry.salt + record.encode() + b"\0" + (tenant or "").encode()
    return entry.tenant == tenant and hashlib.sha256(text).digest() == entry.hash


async def forget_again(connection: Connection, entries: Sequence[Remembered]) -> list[Forgotten]:
    """Forget in this database, which is older, whom another list names; their entries are kept in its own list."""
    if not entries:
        return []
    values = {
        "salts": [each.salt for each in entries],
        "hashes": [each.hash for each in entries],
    }
    found = await (await connection.execute(_FOUND, values)).fetchall()
    done = []
    for place, tenant, record in found:
        entry = entries[place - 1]
        if tenant != entry.tenant:  # where there is none, its hash is as of one without a name
            continue
        done.append(await forget(connection, Person(record, entry.tenant, entry.object), entry.by, remember=False))
    for each in entries:
        row = [each.tenant, each.object, each.salt, each.hash, each.at, each.by, '{"done": true}', each.hash, each.at]
        await connection.execute(_KEEP, row)
    return done
