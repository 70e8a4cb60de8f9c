"""The vendor stand-in: does what it is asked, and says so, late, wrongly, twice asked or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.story import Seen
from tests.loopback import listening

WAYS = (
    "does", "says_429", "fails", "does_and_fails", "does_and_dies", "dies", "slow", "does_and_breaks_off", "says_half",
)  # fmt: skip


@dataclass
class Mood:
    """How likely each way to answer is, in percent; the rest ``does`` what it is asked. ``slow`` is in seconds."""

    ways: dict[str, int] = field(default_factory=dict)
    slow: float = 0.3

    def choose(self, chance: random.Random) -> str:
        drawn = chance.randrange(100)
        for way, percent in self.ways.items():
            if (drawn := drawn - percent) < 0:
                return way
        return "does"


class Vendor:
    """``seen`` is all that it did, in order. A key that comes again is answered as before, and noted again."""

    def __init__(self, seed: int) -> None:
        self.port = 0
        self.mood = Mood()
        self.seen: list[Seen] = []
        self.keys: dict[tuple[str, str], str] = {}  # of all schedules: the first key of each effect
        self.doubled: list[str] = []
        self.ways: Counter[str] = Counter()
        self.came = asyncio.Event()
        self._chance = random.Random(seed)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Vendor]:
        async with listening(self._serve) as self.port:
            yield self

    def forget(self) -> None:
        """Before the next schedule; what was seen under which key stays known."""
        self.seen, self.doubled = [], []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer, goes_on = await self._answer(headers.get("idempotency-key", ""), json.loads(body))
                writer.write(answer)
                await writer.drain()
                if not goes_on:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, key: str, asked: dict[str, str]) -> tuple[bytes, bool]:
        """What it says, and whether the connection goes on."""
        way = self.mood.choose(self._chance)
        self.ways[way] += 1
        if way == "slow":
            await asyncio.sleep(self._chance.uniform(0, self.mood.slow))
        if way not in ("says_429", "fails", "dies"):
            self._do(key, asked)
        match way:
            case "dies" | "does_and_dies":
                return b"", False
            case "does_and_breaks_off":  # in the middle of its status line
                return b"HTTP/1.1 2", False
            case "says_half":  # and then nothing more of its body
                return b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\nok", False
            case "says_429":
                return b"HTTP/1.1 429 Later\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n", True
            case "fails" | "does_and_fails":
                return b"HTTP/1.1 503 Wrong\r\ncontent-length: 5\r\n\r\nwrong", True
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True

    def _do(self, key: str, asked: dict[str, str]) -> None:
        mark, handler = asked["mark"], asked["handler"]
        if self.keys.setdefault((mark, handler), key) != key:
            self.doubled.append(f"{mark} of {handler} came again under another key")
        self.seen.append(Seen(mark, handler, key, asked["tenant"], asked["record"]))
        self.came.set()
