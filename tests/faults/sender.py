"""The vendors' side of intake: signed deliveries, each repeated until somebody says that it was taken.

What it signs it signs by the published rules of Standard Webhooks, with code of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.story import Acked

PATIENCE = 10.0  # seconds for one answer
PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Letter:
    """One delivery as its sender knows it. Those of one record with the same ``rank`` leave at the same time.
    ``fails`` is how many attempts of its handlers fail; ``again`` says that it is sent twice. ``follows`` names the
    handler that enqueues a job for it, "" for none, which is due ``delay`` seconds later."""

    mark: str
    tenant: str
    record: str
    rank: int
    event: str
    fails: int = 0
    again: bool = False
    after: float = 0.0
    follows: str = ""
    delay: float = 0.0

    @property
    def body(self) -> bytes:
        data = {"id": self.record, "rank": self.rank, "mark": self.mark, "fails": self.fails}
        data |= {"follows": self.follows, "delay": self.delay}
        return json.dumps({"type": f"Contact.{self.event}", "data": data}).encode()


@dataclass
class Sender:
    """Sends to the gateway's ``port``; ``secrets`` are by tenant. ``acked`` is what was acknowledged."""

    port: int
    secrets: Mapping[str, bytes]
    acked: list[Acked] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def send(self, streams: Sequence[Sequence[Letter]]) -> None:
        """Each stream in its order; returns when all of it is acknowledged."""
        await asyncio.gather(*(self._stream(stream) for stream in streams))

    async def _stream(self, stream: Sequence[Letter]) -> None:
        for rank in sorted({each.rank for each in stream}):
            together = [each for each in stream if each.rank == rank]
            await asyncio.sleep(max(each.after for each in together))
            await asyncio.gather(*(self._deliver(each) for each in together))

    async def _deliver(self, letter: Letter) -> None:
        id_ = await self._until_taken(letter)
        self.acked.append(Acked(letter.mark, letter.tenant, letter.record, letter.rank, id_, bool(letter.follows)))
        if letter.again:
            other = await self._until_taken(letter)
            if other != id_:
                self.wrong.append(f"{letter.mark} was acknowledged as {id_} and, sent again, as {other}")

    async def _until_taken(self, letter: Letter) -> str:
        while True:
            status, body = await self._post(letter)
            self.statuses[status] += 1
            if status in (200, 202):
                found: str = json.loads(body)["id"]
                return found
            await asyncio.sleep(random.uniform(PAUSE / 2, PAUSE))

    async def _post(self, letter: Letter) -> tuple[int, bytes]:
        """(status, body); status 0 when no answer came."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(self._request(letter))
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                    length = int(head.partition("content-length: ")[2].partition("\r")[0] or 0)
                    return int(head[9:12]), await reader.readexactly(length)
                finally:
                    with contextlib.suppress(OSError):
                        writer.close()
        except (OSError, asyncio.IncompleteReadError, ValueError):  # TimeoutError is an OSError
            return 0, b""

    def _request(self, letter: Letter) -> bytes:
        body, stamp = letter.body, str(int(time.time()))
        mac = hmac.digest(self.secrets[letter.tenant], f"{letter.mark}.{stamp}.".encode() + body, hashlib.sha256)
        lines = (
            f"POST /webhooks/standard/shop-{letter.tenant} HTTP/1.1",
            "host: 127.0.0.1",
            "connection: close",
            f"content-length: {len(body)}",
            f"webhook-id: {letter.mark}",
            f"webhook-timestamp: {stamp}",
            f"webhook-signature: v1,{base64.b64encode(mac).decode()}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body
