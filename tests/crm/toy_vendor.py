"""The vendor that the toy connector speaks to: its records, its errors, its mishaps. A real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Fields = dict[str, Any]
Told = Callable[[str, str, Fields], Awaitable[None]]  # hears of each change: object, event, record


@dataclass
class ToyVendor:
    """``mishaps`` are what happens to the next requests; ``limit`` are the seconds that a 429 asks for. A field named
    ``bad`` is refused. ``told`` hears of changes before they are answered."""

    key: str = "toy-secret-key-1"
    limit: float = 2
    url: str = ""
    records: dict[str, dict[str, Fields]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    mishaps: list[str] = field(default_factory=list)
    requests: list[tuple[str, int]] = field(default_factory=list)  # the path, and how many rows it had
    writes: list[tuple[str, str, Fields]] = field(default_factory=list)  # in the order in which they were made
    told: Told | None = None
    hold: asyncio.Event | None = None  # answers wait for it, after what they answer is done
    _number: int = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ToyVendor]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def of(self, object_: str) -> dict[str, Fields]:
        return self.records.setdefault(object_, {})

    def make(self, object_: str, fields: Fields) -> str:
        self._number += 1
        made = f"T-{self._number:05d}"
        self.of(object_)[made] = dict(fields)
        return made

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.requests.append((request.path, len(body.get("rows", ()))))
        mishap = self.mishaps.pop(0) if self.mishaps else ""
        if mishap == "drop_before":
            return _dropped(request)
        if mishap == "429":
            return web.json_response({"message": "slow down"}, status=429, headers={"retry-after": str(self.limit)})
        if mishap == "500":
            return web.json_response({"message": "oops"}, status=503)
        if mishap == "401" or request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"message": f"bad token {request.headers.get('authorization')}"}, status=401)
        answer = await self._answer(request.path.strip("/").split("/"), body)
        if self.hold is not None:
            await self.hold.wait()
        return _dropped(request) if mishap == "drop_after" else answer

    async def _answer(self, path: list[str], body: Fields) -> web.Response:
        match path:
            case ["keys", key]:
                made = self.keys.get(key)
                return web.json_response({"id": made} if made else {}, status=200 if made else 404)
            case ["objects", object_, "search"]:
                return web.json_response(self._search(object_, body))
            case ["objects", object_, "get"]:
                found = [(each, self.of(object_).get(each)) for each in body["ids"]]
                return web.json_response(
                    {"rows": [{"id": id_, "fields": row} for id_, row in found if row is not None]}
                )
            case ["objects", object_, operation]:
                results = [await self._write(object_, operation, row) for row in body["rows"]]
                return web.json_response({"results": results})
        return web.json_response({"message": "no such path"}, status=404)

    def _search(self, object_: str, body: Fields) -> Fields:
        rows = [
            (id_, row)
            for id_, row in sorted(self.of(object_).items())
            if id_ > (body["after"] or "") and all(row.get(name) == value for name, value in body["equal"])
        ]
        page, rest = rows[: body["size"]], rows[body["size"] :]
        return {"rows": [{"id": id_, "fields": row} for id_, row in page], "after": page[-1][0] if rest else None}

    async def _write(self, object_: str, operation: str, row: Fields) -> Fields:
        if row["key"] in self.keys:
            return {"id": self.keys[row["key"]]}
        there, id_, fields = self.of(object_), row["id"], row.get("fields", {})
        if "bad" in fields:
            return {"error": "is not allowed here", "field": "bad"}
        if operation in ("update", "delete") and id_ not in there:
            return {"error": f"there is no {object_} {id_}", "field": "id"}
        event = {"insert": "afterInsert", "delete": "afterDelete"}.get(operation, "afterUpdate")
        if operation == "delete":
            fields = there.pop(id_)
        elif operation == "insert" or id_ not in there:
            event, id_ = "afterInsert", self.make(object_, fields)
        else:
            there[id_] |= fields
            fields = there[id_]
        self.keys[row["key"]] = id_
        self.writes.append((operation, id_, dict(row.get("fields", {}))))
        if self.told is not None:
            await self.told(object_, event, {**fields, "id": id_})
        return {"id": id_}


def _dropped(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()
