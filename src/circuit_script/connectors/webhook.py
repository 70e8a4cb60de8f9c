"""Posts an effect as JSON to a named address of ``circuit.toml``; alerts use it.

Signed as Standard Webhooks where the address has a secret: ``webhook-id`` is the idempotency key, so a
receiver that keeps ids sees each effect once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from circuit_script.clock import wall
from circuit_script.config import Address
from circuit_script.connectors import depth
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Refused,
    SlowDown,
    Unknown,
)
from circuit_script.telemetry.w3c import HEADER as TRACEPARENT

DEPTH = depth.HEADER
RETRYABLE = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504})
MAX_RETRY_AFTER = 3600.0
PATIENCE = 10.0  # seconds for one POST, so that a slow receiver leaves the others of its bulk time
READING = 1.0  # seconds for the body of its answer, which is read so that the connection can be used again
MAX_BODY = 64 * 1024
QUOTED = 200


class WebhookConnector:
    """One POST an effect; a receiver that honours ``Idempotency-Key`` makes repeating safe."""

    name = "webhook"
    operations: Mapping[str, Operation] = {"post": Operation(in_doubt=InDoubt.REPEAT, irreversible=True)}

    def __init__(self, addresses: Mapping[str, Address], client: httpx.AsyncClient) -> None:
        self._addresses = addresses
        self._client = client

    def knows(self, target: str) -> bool:
        return target in self._addresses

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return await asyncio.gather(*(self._post(each) for each in effects))

    async def _post(self, effect: Effect) -> Delivery:
        address = self._addresses.get(effect.target)
        if address is None:
            return Refused(f"no address {effect.target!r}: add [addresses.{effect.target}] to circuit.toml")
        body = msgspec.json.encode(effect.payload)
        stamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "idempotency-key": str(effect.id),
            **signature(address.secret, str(effect.id), stamp, body),
            DEPTH: depth.header(address.secret, str(effect.id), stamp, effect.depth),
        }
        if effect.traceparent is not None:
            headers[TRACEPARENT] = effect.traceparent
        try:
            async with asyncio.timeout(PATIENCE), self._client.stream("POST", address.url, content=body,
                                                                      headers=headers) as answer:  # fmt: skip
                return await verdict_of(answer)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Later(f"{type(error).__name__}: {error}", down=True)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            return Refused(f"{type(error).__name__}: {error}")
        except (httpx.HTTPError, TimeoutError) as error:
            return Unknown(f"{type(error).__name__}: {error}")


async def verdict_of(answer: httpx.Response) -> Delivery:
    """What the answer says about the effect. Its status is enough, whatever becomes of its body."""
    body = bytearray()
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(READING):
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY:
                    break
    if answer.is_success:
        return Delivered()
    after = retry_after(answer.headers.get("retry-after"))
    if answer.status_code == 429:
        return SlowDown("HTTP 429", after)
    if answer.status_code in RETRYABLE:
        return Later(f"HTTP {answer.status_code}", after, down=answer.status_code >= 500)
    return Refused(f"HTTP {answer.status_code}: {body[:QUOTED].decode(errors='replace')}")


def retry_after(value: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, said as such or as a date, at most an hour; nonsense gives None."""
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER) if len(value) < 9 else None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:  # an HTTP date is in UTC, whether it says so or not
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - wall(), 0.0), MAX_RETRY_AFTER)


def signature(secret: str, identifier: str, stamp: int, body: bytes) -> dict[str, str]:
    """Headers of Standard Webhooks (HMAC-SHA256 over ``id.timestamp.body``); none without a secret."""
    headers = {"webhook-id": identifier, "webhook-timestamp": str(stamp)}
    if not secret:
        return headers
    mac = hmac.new(depth.key_of(secret), f"{identifier}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return headers | {"webhook-signature": "v1," + base64.b64encode(mac).decode()}
