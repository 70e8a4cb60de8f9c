"""What gateways tell each other of a mirrored source: which move each follows, and what the side before still has.

Each says so several times a second. A move counts for a gateway once every living one follows it and has nothing open:
what a vendor sends again through another gateway is in the ledger by then, and so is acted on by one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from circuit_script.db.pool import Connection

GONE = timedelta(seconds=5)  # after which a gateway that says nothing is waited for no more
RESENDING = timedelta(minutes=5)  # in which a vendor sends again what a gateway that was killed had

TELL = """
INSERT INTO circuit.mirror_gateways AS g (gateway, source, knows, open)
SELECT %(gateway)s, t.source, t.knows, t.open
FROM unnest(%(sources)s::text[], %(knows)s::timestamptz[], %(open)s::int[]) AS t (source, knows, open)
ON CONFLICT (gateway, source) DO UPDATE SET knows = excluded.knows, open = excluded.open, at = clock_timestamp()
"""
BEHIND = """
SELECT DISTINCT m.source FROM circuit.mirrors m JOIN circuit.mirror_gateways g USING (source)
WHERE g.gateway <> %s AND g.at > clock_timestamp() - %s AND (g.knows IS DISTINCT FROM m.since OR g.open > 0)
"""
LEAVE = "DELETE FROM circuit.mirror_gateways WHERE gateway = %s OR at < clock_timestamp() - interval '1 day'"
LOST = """
SELECT max(at) FROM circuit.mirror_gateways
WHERE source = %s AND at <= clock_timestamp() - %s AND at > clock_timestamp() - %s
"""


async def tell(connection: Connection, gateway: UUID, known: Mapping[str, tuple[datetime | None, int]]) -> None:
    """Of each source the move that this gateway follows, and how many deliveries the side before still has."""
    values = {
        "gateway": gateway, "sources": list(known), "knows": [knows for knows, _ in known.values()],
        "open": [open_ for _, open_ in known.values()],
    }  # fmt: skip
    await connection.execute(TELL, values)


async def behind(connection: Connection, gateway: UUID) -> frozenset[str]:
    """Sources of which another living gateway does not follow the latest move yet."""
    rows = await (await connection.execute(BEHIND, [gateway, GONE])).fetchall()
    return frozenset(source for (source,) in rows)


async def leave(connection: Connection, gateway: UUID) -> None:
    """It has stopped, and nothing of it is open."""
    await connection.execute(LEAVE, [gateway])


async def lost_at(connection: Connection, source: str) -> datetime | None:
    """When a gateway was last heard of that ended without a word, and whose deliveries may be sent again still."""
    row = await (await connection.execute(LOST, [source, GONE, RESENDING])).fetchone()
    return None if row is None else row[0]
