"""Lane leases: which of the 64 lanes this worker owns, each with a fencing epoch (decision 0003)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from circuit_script.clock import agree
from circuit_script.db.pool import Connection
from circuit_script.db.server_lock import is_alive
from circuit_script.failpoints import areach

LANES = 64

BEAT = """
INSERT INTO circuit.workers AS w (id, host, pid, expires_at)
VALUES (%s, %s, %s, now() + make_interval(secs => %s))
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
RETURNING clock_timestamp()
"""
BURY = "DELETE FROM circuit.workers WHERE expires_at < now() - interval '1 hour'"
HELD = "SELECT lane, epoch, low_water FROM circuit.lanes WHERE owner = %s"
LIVE = "SELECT count(*) FROM circuit.workers WHERE expires_at > now()"
# The epoch is compared again when the row is locked: who took the lane in the same moment keeps it. (Locking in
# the query instead would check the new owner against workers as they were before it arrived, and rob it.)
ACQUIRE = """
WITH free AS MATERIALIZED (
    SELECT l.lane, l.epoch FROM circuit.lanes l LEFT JOIN circuit.workers w ON w.id = l.owner
    WHERE l.owner IS NULL OR w.id IS NULL OR w.expires_at < now()
    ORDER BY l.lane LIMIT %s)
UPDATE circuit.lanes l SET owner = %s, epoch = l.epoch + 1
FROM free WHERE l.lane = free.lane AND l.epoch = free.epoch
RETURNING l.lane, l.epoch, l.low_water
"""
RELEASE = """
UPDATE circuit.lanes l SET owner = NULL
FROM unnest(%s::smallint[], %s::bigint[]) AS mine (lane, epoch)
WHERE l.lane = mine.lane AND l.epoch = mine.epoch AND l.owner = %s
"""
MARK = """
UPDATE circuit.lanes l SET low_water = mark.low
FROM unnest(%s::smallint[], %s::bigint[]) AS mark (lane, low)
WHERE l.lane = mark.lane AND l.owner = %s AND l.low_water < mark.low
"""
NEIGHBOURS = "SELECT id, pid FROM circuit.workers WHERE host = %s AND id <> %s"
DROP = "DELETE FROM circuit.workers WHERE id = ANY(%s)"
LEAVE = "DELETE FROM circuit.workers WHERE id = %s"
ASLEEP = "UPDATE circuit.workers SET asleep = %s WHERE id = %s AND asleep <> %s"


@dataclass(frozen=True, slots=True)
class Change:
    """What one heartbeat found: lanes won (lane → its low-water mark), lost, and owed to other workers."""

    won: Mapping[int, int]
    lost: frozenset[int]
    owed: int


class Lanes:
    """The lanes of one worker. ``held`` maps lane → epoch."""

    def __init__(self, worker: UUID, lease: float) -> None:
        self.worker = worker
        self.held: dict[int, int] = {}
        self._lease = lease
        self._beaten = 0.0
        self._host = this_host()
        self._first = True

    @property
    def valid(self) -> bool:
        """False when the lease may have run out: then nothing new may start."""
        return time.monotonic() - self._beaten < self._lease * 0.8

    async def renew(self, connection: Connection) -> None:
        """Only renew the lease, in the middle of long work; and hear what time it is."""
        started = time.monotonic()
        told = await connection.execute(BEAT, [self.worker, self._host, os.getpid(), self._lease])
        if row := await told.fetchone():
            agree(row[0], started)
        self._beaten = started

    async def beat(self, connection: Connection) -> Change:
        """Renew the lease, learn which lanes were lost, and take free ones up to a fair share.

        Won are also lanes that an earlier beat took without hearing of it, because its connection broke.
        """
        await areach("lanes.beat")
        await self.renew(connection)
        await connection.execute(BURY)
        if self._first:
            await self._bury_the_killed(connection)
            self._first = False
        live = await (await connection.execute(LIVE)).fetchone()
        share = -(-LANES // max(1, live[0] if live else 1))
        mine = await (await connection.execute(HELD, [self.worker])).fetchall()
        if len(mine) < share:
            mine += await (await connection.execute(ACQUIRE, [share - len(mine), self.worker])).fetchall()
        await areach("lanes.taken")
        before, self.held = self.held, {lane: epoch for lane, epoch, _ in mine}
        lost = frozenset(lane for lane, epoch in before.items() if self.held.get(lane) != epoch)
        won = {lane: low for lane, epoch, low in mine if before.get(lane) != epoch}
        return Change(won, lost, max(0, len(self.held) - share))

    async def _bury_the_killed(self, connection: Connection) -> None:
        """Workers of this host whose process is gone need no lease to end: their lanes are free at once."""
        rows = await (await connection.execute(NEIGHBOURS, [self._host, self.worker])).fetchall()
        gone = [worker for worker, pid in rows if not is_alive(pid)]
        if gone:
            await connection.execute(DROP, [gone])

    async def release(self, connection: Connection, lanes: Mapping[int, int]) -> None:
        """Give lanes back, so that another worker takes them without waiting for the lease to end."""
        await areach("lanes.release")
        await connection.execute(RELEASE, [list(lanes), list(lanes.values()), self.worker])
        for lane in lanes:
            self.held.pop(lane, None)

    async def mark(self, connection: Connection, low: Mapping[int, int]) -> None:
        """Remember, per lane, below which event id nothing is left to do."""
        await areach("lanes.mark")
        await connection.execute(MARK, [list(low), list(low.values()), self.worker])

    async def leave(self, connection: Connection) -> None:
        await self.release(connection, dict(self.held))
        await connection.execute(LEAVE, [self.worker])

    async def sleep(self, connection: Connection, asleep: bool) -> None:
        """Tell the gateways whether this worker wants to be woken."""
        await connection.execute(ASLEEP, [asleep, self.worker, asleep])


def this_host() -> str:
    """This host as its workers see it: processes with the same name here have the same process ids and boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()} {boot} {space}"
