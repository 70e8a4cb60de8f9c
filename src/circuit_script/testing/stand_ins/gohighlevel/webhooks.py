"""Webhooks as the vendor sends them: signed with Ed25519 over the raw body, with a stamp and an id of their own.

What can go wrong on the way can be switched on: some come twice, some in another order, some never. The vendor sends
again only what was answered 429, and drops what was answered 5xx or not at all; so does this.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from circuit_script.testing.stand_ins.gohighlevel.world import Doc

TRIES = 6  # after a 429


@dataclass(slots=True)
class Webhooks:
    """``url`` is where they go (the gateway's ``/webhooks/gohighlevel``). ``echoes``: our own writes are told, too.
    ``twice``, ``lost`` and ``shuffled`` are chances from 0 to 1. ``pause`` are the seconds before a 429 is sent again:
    ten minutes with the vendor."""

    url: str = ""
    echoes: bool = True
    twice: float = 0.0
    lost: float = 0.0
    shuffled: float = 0.0
    pause: float = 600.0
    seed: int = 1
    sent: list[tuple[int, Doc]] = field(default_factory=list)  # with what was answered; 0: nothing
    waiting: list[bytes] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _key: Ed25519PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self._random.randbytes(32))

    @property
    def public_key(self) -> str:
        """Base64 of the DER, as ``test_public_key`` of circuit.toml wants it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def add(self, body: Doc, stamp: str) -> None:
        """It will be sent, unless it is one that gets lost."""
        whole = json.dumps(
            body | {"timestamp": stamp, "webhookId": str(UUID(int=self._random.getrandbits(128), version=4))}
        )
        if self._random.random() < self.lost:
            return
        raw = whole.encode()
        place = (
            self._random.randrange(len(self.waiting) + 1)
            if self._random.random() < self.shuffled
            else len(self.waiting)
        )
        self.waiting.insert(place, raw)
        if self._random.random() < self.twice:
            self.waiting.append(raw)

    def sign(self, raw: bytes) -> dict[str, str]:
        signature = base64.b64encode(self._key.sign(raw)).decode()
        return {"content-type": "application/json", "x-ghl-signature": signature}

    async def flush(self) -> None:
        """Send what waits."""
        if not self.url:
            return
        async with httpx.AsyncClient(timeout=10) as client:
            while self.waiting:
                raw = self.waiting.pop(0)
                status = 0
                for attempt in range(TRIES + 1):
                    if attempt:
                        await asyncio.sleep(self.pause)
                    try:
                        status = (await client.post(self.url, content=raw, headers=self.sign(raw))).status_code
                    except httpx.HTTPError:
                        status = 0
                    if status != 429:
                        break
                self.sent.append((status, json.loads(raw)))
