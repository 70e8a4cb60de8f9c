"""The ceiling: the same steps with nothing around them.

Raw ASGI on uvicorn, Ed25519 over the raw body, one commit for many requests, two forked children that score batches
of up to 200, and their writes committed in groups. Deliveries are kept, duplicates found, acknowledged work survives
a crash (a queue row per event, deleted with its outcome), one record is always handled by the same child. No limits,
logs, telemetry, tenants or retries.

    python -m benchmarks.bare --database URL --port N --public-key BASE64 [--intake-only]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import os
import socket
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from benchmarks.scoring import score

CHILDREN = 2
BATCH = 200

SCHEMA = """
DROP SCHEMA IF EXISTS bare CASCADE;
CREATE SCHEMA bare;
CREATE TABLE bare.deliveries (id uuid PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE bare.queue (id uuid PRIMARY KEY);
CREATE TABLE bare.records (id text PRIMARY KEY, data jsonb NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
"""

TAKE_IN = """
WITH new AS (
    INSERT INTO bare.deliveries SELECT * FROM unnest(%b::uuid[], %b::bytea[]) ON CONFLICT DO NOTHING RETURNING id
), queued AS (INSERT INTO bare.queue SELECT id FROM new)
SELECT id FROM new
"""

TAKE_IN_ONLY = """
INSERT INTO bare.deliveries SELECT * FROM unnest(%b::uuid[], %b::bytea[]) ON CONFLICT DO NOTHING RETURNING id
"""

FINISH = """
WITH done AS (DELETE FROM bare.queue WHERE id = ANY(%b::uuid[]))
INSERT INTO bare.records (id, data) SELECT id, data::jsonb FROM unnest(%b::text[], %b::text[]) AS t (id, data)
ON CONFLICT (id) DO UPDATE SET data = records.data || excluded.data, at = clock_timestamp()
"""

Grouped = Callable[[list[Any]], Any]


class Webhook(msgspec.Struct):
    """The three fields that intake reads."""

    type: str
    id: str
    webhookId: str  # the vendor's spelling


class Grouper:
    """Everything that arrives while one commit is under way goes into the next one."""

    def __init__(self, commit: Grouped) -> None:
        self._commit = commit
        self._waiting: list[Any] = []
        self._arrived = asyncio.Event()

    def add(self, item: Any) -> None:
        self._waiting.append(item)
        self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            await self._commit(group)


class Child:
    """The parent's end of one forked worker."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._waiting: list[tuple[UUID, bytes]] = []
        self._arrived = asyncio.Event()

    def add(self, item: tuple[UUID, bytes]) -> None:
        self._waiting.append(item)
        self._arrived.set()

    async def run(self, outcomes: Grouper) -> None:
        reader, writer = await asyncio.open_connection(sock=self._ours)
        while True:
            await self._arrived.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._arrived.clear()
            frame = msgspec.msgpack.encode([body for _, body in batch])
            writer.write(len(frame).to_bytes(4, "big") + frame)
            size = int.from_bytes(await reader.readexactly(4), "big")
            rows = msgspec.msgpack.decode(await reader.readexactly(size))
            outcomes.add(([identifier for identifier, _ in batch], rows))


def fork_child() -> socket.socket:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        try:
            serve_batches(theirs)
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return ours


def serve_batches(connection: socket.socket) -> None:
    """The child: decode each body, score it, answer the whole batch with what to write."""
    stream = connection.makefile("rwb")
    while head := stream.read(4):
        bodies = msgspec.msgpack.decode(stream.read(int.from_bytes(head, "big")))
        frame = msgspec.msgpack.encode(scored(bodies))
        stream.write(len(frame).to_bytes(4, "big") + frame)
        stream.flush()


def scored(bodies: list[bytes]) -> list[tuple[str, str]]:
    """The id of each contact, and the row to write."""
    contacts = map(msgspec.json.decode, bodies)
    return [(contact["id"], msgspec.json.encode(contact | score(contact)).decode()) for contact in contacts]


class Bare:
    """The ASGI application and the two commit loops."""

    def __init__(self, database: str, public_key: str, children: list[Child]) -> None:
        self._database = database
        key = load_der_public_key(base64.b64decode(public_key))
        assert isinstance(key, Ed25519PublicKey)
        self._verify = key.verify
        self._children = children
        self._intake = Grouper(self._take_in)
        self._outcomes = Grouper(self._finish)
        self._webhook = msgspec.json.Decoder(Webhook)
        self._finished = 0

    async def run(self, port: int) -> None:
        self._in = await psycopg.AsyncConnection.connect(self._database, autocommit=True, prepare_threshold=0)
        self._out = await psycopg.AsyncConnection.connect(self._database, autocommit=True, prepare_threshold=0)
        await self._in.execute(SCHEMA, prepare=False)
        loops = [self._intake.run(), self._outcomes.run(), *(c.run(self._outcomes) for c in self._children)]
        config = uvicorn.Config(
            self, host="127.0.0.1", port=port, loop="uvloop", http="httptools", log_level="error", access_log=False,
            lifespan="off", ws="none", proxy_headers=False, server_header=False, date_header=False,
        )  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(loop) for loop in loops]
            await uvicorn.Server(config).serve()
            for task in started:
                task.cancel()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            return await answer(send, 200, b'{"finished": %d}' % self._finished)
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        signature = next((value for name, value in scope["headers"] if name == b"x-ghl-signature"), b"")
        try:
            self._verify(base64.b64decode(signature), body)
            webhook = self._webhook.decode(body)
        except (InvalidSignature, ValueError):
            return await answer(send, 401, b"{}")
        committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._intake.add((UUID(webhook.webhookId), body, webhook.id, committed))
        return await answer(send, 202 if await committed else 200, b'{"id": "%s"}' % webhook.webhookId.encode())

    async def _take_in(self, group: list[Any]) -> None:
        statement = TAKE_IN if self._children else TAKE_IN_ONLY
        cursor = await self._in.execute(
            statement, ([item[0] for item in group], [item[1] for item in group]), binary=True
        )
        new = {row[0] for row in await cursor.fetchall()}
        for identifier, body, record, committed in group:
            committed.set_result(identifier in new)
            if self._children and identifier in new:
                new.discard(identifier)
                self._children[zlib.crc32(record.encode()) % len(self._children)].add((identifier, body))

    async def _finish(self, group: list[Any]) -> None:
        done = [identifier for identifiers, _ in group for identifier in identifiers]
        rows = {record: data for _, pairs in group for record, data in pairs}
        await self._out.execute(FINISH, (done, list(rows), list(rows.values())), binary=True)
        self._finished += len(done)


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--public-key", required=True)
    parser.add_argument("--intake-only", action="store_true")
    options = parser.parse_args()
    sockets = [] if options.intake_only else [fork_child() for _ in range(CHILDREN)]
    gc.freeze()
    import uvloop

    uvloop.run(Bare(options.database, options.public_key, [Child(ours) for ours in sockets]).run(options.port))


if __name__ == "__main__":
    main()
