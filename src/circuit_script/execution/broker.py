"""The parent's answer to what a governed child asks for: counted, bounded, journaled, and held where it must be."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import httpx
import msgspec

from circuit_script.connectors.connector import CRM, Fields, Query
from circuit_script.errors import DatabaseUnavailable, RequestRefused
from circuit_script.execution.outcome import Work, bounded
from circuit_script.governor import MB, LimitExceeded, Usage

MAX_HEADERS = 100
HELD_BYTES = 32 * MB
GZIP = 16 + zlib.MAX_WBITS


class Held(Protocol):
    """Where writes and sends wait for the outcome."""

    def write(self, op: str, object_: str, rows: Sequence[Any], owner: int | None) -> list[str]: ...

    def send(self, connector: str, operation: str, target: str, payload: Fields, owner: int | None) -> UUID: ...

    def overlay_rows(self, object_: str, ids: Sequence[str], rows: Sequence[Fields | None]) -> list[Fields | None]: ...

    def unread(self, object_: str, rows: Sequence[Fields]) -> list[str]: ...

    def overlay_query(self, query: Query, rows: Sequence[Fields]) -> list[Fields]: ...


class Journal(Protocol):
    """Replies of calls that already left. ``owner`` is the index of the record, None for the whole batch."""

    def find(self, owner: int | None, key: bytes) -> bytes | None: ...

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None: ...


class Checkpoint(Protocol):
    """Commits the records up to ``upto``, which have these errors and decisions. Raises RequestRefused."""

    async def __call__(self, upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None]) -> None: ...


class ExecutionBroker:
    """One execution's broker. Without a ``checkpoint`` those of the handler change nothing: all is committed at the
    end."""

    def __init__(
        self,
        work: Work,
        *,
        crm: CRM,
        held: Held,
        journal: Journal,
        client: httpx.AsyncClient,
        knows: Callable[[str, str], bool],
        log: Callable[[dict[str, Any]], None],
        remaining: Callable[[], float],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.usage = Usage()
        self._work = work
        self._crm = crm
        self._held = held
        self._journal = journal
        self._client = client
        self._knows = knows
        self._log = log
        self._remaining = remaining
        self._commit = checkpoint
        self._breach: tuple[str, float, float] | None = None
        self._held_bytes = 0
        self.database_away = False
        self._calls: Counter[tuple[int | None, bytes]] = Counter()
        self._known: set[tuple[str, str]] = {(work.object, str(row.get("id"))) for row in work.records}

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Answer one request of the child.

        Raises RequestRefused for what it may not have, and LimitExceeded, for ever after the first one.
        """
        if self._breach is not None:
            raise LimitExceeded(*self._breach)
        handle = _VERBS.get(verb)
        if handle is None:
            raise RequestRefused(f"there is no request {verb!r}.")
        try:
            return await handle(self, arguments)
        except LimitExceeded as breach:
            self._breach = breach.crossed
            raise
        except DatabaseUnavailable as error:
            self.database_away = True
            raise RequestRefused(f"{verb}: the database is away: {error.detail}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestRefused(f"{verb}: {type(error).__name__}: {error}.") from None

    def log(self, line: dict[str, Any]) -> None:
        """Take one log line; its record's place becomes the record's id.

        Raises LimitExceeded when it is over the limit; the line is then dropped.
        """
        size = len(str(line.get("message", ""))) + len(str(line.get("context") or ""))
        try:
            self._spend("log_bytes", size)
        except LimitExceeded as breach:
            self._breach = self._breach or breach.crossed
            raise
        if line.get("record") is not None:
            line["record"] = self._id_at(line["record"])
        self._log(line)

    def _id_at(self, place: Any) -> str | None:
        """The id of the record at this place, for whoever looks for what concerns one record."""
        if not isinstance(place, int) or not 0 <= place < len(self._work.records):
            return None
        identifier = self._work.records[place].get("id")
        return None if identifier is None else str(identifier)

    def _hold(self, value: Any) -> None:
        """Count what is held for the outcome: it waits in the worker's memory, and leaves in one statement."""
        self._held_bytes += len(msgspec.msgpack.encode(value, enc_hook=str))
        if self._held_bytes > HELD_BYTES:
            raise LimitExceeded("effect_bytes", self._held_bytes, HELD_BYTES)

    def _spend(self, limit: str, amount: int) -> None:
        used = getattr(self.usage, limit) + amount
        setattr(self.usage, limit, used)
        ceiling = getattr(self._work.limits, limit)
        if limit == "messages":
            ceiling *= max(1, len(self._work.records))
        if used > ceiling:
            raise LimitExceeded(limit, used, ceiling)

    def _owner(self, asked: Mapping[str, Any]) -> int | None:
        """The index of the record that a request says it is made for."""
        owner = asked.get("record")
        if owner is not None and (not isinstance(owner, int) or not 0 <= owner < len(self._work.records)):
            raise ValueError(f"there is no record {owner!r} in this batch")
        return owner

    async def _dml(self, asked: dict[str, Any]) -> dict[str, list[str]]:
        object_, op, rows = str(asked["object"]), str(asked["op"]), asked["rows"]
        self._spend("dml_statements", 1)
        self._spend("dml_rows", len(rows))
        self._hold(rows)
        if op in ("update", "delete"):
            await self._must_exist(op, object_, rows)
        ids = self._held.write(op, object_, rows, self._owner(asked))
        self._known.update((object_, each) for each in ids)
        return {"ids": ids}

    async def _must_exist(self, op: str, object_: str, rows: Sequence[Any]) -> None:
        """An update of a record that nobody has seen is an error, as it is with every CRM."""
        unseen = [
            str(row["id"])
            for row in rows
            if isinstance(row, dict) and row.get("id") and (object_, str(row["id"])) not in self._known
        ]
        if not unseen:
            return
        found = await self._crm.get(self._work.tenant, object_, unseen)
        missing = [key for key, row in zip(unseen, found, strict=True) if row is None]
        if missing:
            raise RequestRefused(f"{op} {object_}: there is no record {missing[0]!r}.")
        self._known.update((object_, key) for key in unseen)

    async def _query(self, asked: dict[str, Any]) -> list[Fields]:
        self._spend("db_queries", 1)
        limit = asked.get("limit")
        limit = 1000 if limit is None else int(limit)
        where = asked.get("where") or {}
        if not isinstance(where, dict):
            raise TypeError("where maps fields to values")
        query = Query(str(asked["object"]), where, asked.get("order_by"), limit)
        rows = await self._crm.query(self._work.tenant, query)
        if unread := self._held.unread(query.object, rows):
            written = await self._crm.get(self._work.tenant, query.object, unread)
            rows += [row for row in written if row is not None]
        rows = self._held.overlay_query(query, rows)
        self._spend("db_rows", len(rows))
        self._known.update((query.object, str(row["id"])) for row in rows)
        return rows

    async def _get(self, asked: dict[str, Any]) -> list[Fields | None]:
        self._spend("db_queries", 1)
        object_, ids = str(asked["object"]), [str(each) for each in asked["ids"]]
        stored = await self._crm.get(self._work.tenant, object_, ids)
        rows = self._held.overlay_rows(object_, ids, stored)
        self._spend("db_rows", sum(row is not None for row in rows))
        self._known.update((object_, key) for key, row in zip(ids, rows, strict=True) if row is not None)
        return rows

    async def _send(self, asked: dict[str, Any]) -> dict[str, str]:
        connector, target = str(asked["connector"]), str(asked["to"])
        if not self._knows(connector, target):
            raise RequestRefused(
                f"{connector} knows no address {target!r}.",
                cure=f"Add [addresses.{target}] with its url to circuit.toml.",
            )
        if not isinstance(asked["payload"], dict):
            raise RequestRefused(f"a payload is a mapping, not a {type(asked['payload']).__name__}.")
        self._spend("messages", 1)
        self._hold(asked["payload"])
        held = self._held.send(connector, str(asked["operation"]), target, asked["payload"], self._owner(asked))
        return {"id": str(held)}

    async def _checkpoint(self, asked: dict[str, Any]) -> None:
        size = len(self._work.records)
        upto = asked["upto"]
        if not isinstance(upto, int) or not 0 <= upto < size:
            raise ValueError(f"there is no record {upto!r} in this batch")
        errors = {int(place): str(reason) for place, reason in asked["errors"]}
        decided = {int(place): bounded(after) for place, after in asked["decided"]}
        if self._commit is not None:
            await self._commit(upto, errors, decided)

    async def _connect(self, asked: dict[str, Any]) -> None:
        self._spend("callouts", 1)

    async def _http(self, asked: dict[str, Any]) -> dict[str, Any]:
        owner = self._owner(asked)
        if owner is None and len(self._work.records) == 1:
            owner = 0
        fingerprint = hashlib.blake2b(msgspec.msgpack.encode([
            asked["method"], asked["url"], sorted((asked.get("headers") or {}).items()), asked.get("body"),
        ]), digest_size=16).digest()  # fmt: skip
        self._calls[owner, fingerprint] += 1
        key = fingerprint + self._calls[owner, fingerprint].to_bytes(4, "big")
        if (known := self._journal.find(owner, key)) is not None:
            return dict(msgspec.msgpack.decode(known))
        self._spend("callouts", 1)
        answer = await self._fetch(asked)
        if answer["status"] < 400:  # what failed may succeed the next time
            await self._journal.keep(owner, key, msgspec.msgpack.encode(answer))
        return answer

    async def _fetch(self, asked: dict[str, Any]) -> dict[str, Any]:
        ceiling = self._work.limits.callout_bytes
        body = asked.get("body")
        if body is not None and len(body) > ceiling:
            raise LimitExceeded("callout_bytes", len(body), ceiling)
        patience = max(0.05, min(float(asked.get("timeout") or 30.0), self._remaining()))
        headers = {"accept-encoding": "gzip", **(asked.get("headers") or {})}
        try:
            request = self._client.stream(
                asked["method"], asked["url"], headers=headers, content=body, timeout=patience
            )
            async with request as response:
                received = await _received(response, ceiling)
                kept = dict(list(response.headers.items())[:MAX_HEADERS])
                return {"status": response.status_code, "headers": kept, "body": received}
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error) as error:
            raise RequestRefused(f"{asked['method']} {asked['url']}: {type(error).__name__}: {error}.") from None


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
_VERBS: Mapping[str, Callable[[ExecutionBroker, dict[str, Any]], Any]] = {
    "dml": ExecutionBroker._dml,
    "query": ExecutionBroker._query,
    "get": ExecutionBroker._get,
    "http": ExecutionBroker._http,
    "send": ExecutionBroker._send,
    "connect": ExecutionBroker._connect,
    "checkpoint": ExecutionBroker._checkpoint,
}


async def _received(response: httpx.Response, ceiling: int) -> bytes:
    """The body, decompressed here: a few bytes may stand for gigabytes, so the ceiling is held while it grows.

    Another coding than gzip is left to who asked for it.
    """
    packed = response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
    unpack = zlib.decompressobj(wbits=GZIP)
    body = bytearray()
    async for chunk in response.aiter_raw():
        while chunk:
            body += unpack.decompress(chunk, ceiling + 1 - len(body)) if packed else chunk
            if len(body) > ceiling:
                raise LimitExceeded("callout_bytes", len(body), ceiling)
            chunk = unpack.unconsumed_tail if packed else b""
    if packed:
        del response.headers["content-encoding"]
    return bytes(body)
