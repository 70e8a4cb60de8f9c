"""Idempotency-Key: a request that is sent again gets the answer of the first one (as Stripe defined it).

A key belongs to one tenant, endpoint and caller for 24 hours. What an execution committed, and what a handler refused
for good, is answered again; what failed was discarded, so its key may be used again at once.

Behind one tenant may stand many users, whom only the app can tell apart, by credentials. So whoever sends others has
keys of his own. Only the same request under the same key is refused to him: it may be the same user with a fresh token,
and then it must neither run twice nor be answered to somebody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from circuit_script.db.pool import Pool
from circuit_script.endpoints.protocol import Answer
from circuit_script.execution.outcome import HttpRequest

MAX_KEY = 255  # characters
WITHOUT_EFFECT = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing: their key means nothing
CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key", "x-auth-token"})  # of the app; ours are gone by now
PASSING = frozenset({401, 403, 408, 425, 429})  # refusals that the same request may not get another time
CLAIM = "SELECT verdict, wait, status, headers, body FROM circuit.claim(%s, %s, %s, %s, %s, %s, %s)"
RELEASE = (
    "DELETE FROM circuit.idempotency WHERE tenant = %s AND endpoint = %s AND key = %s AND execution = %s "
    "AND status IS NULL"
)
REPLAYED = ("idempotent-replayed", "true")


@dataclass(frozen=True, slots=True)
class Taken:
    """The key is this execution's."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The request had this answer before."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Running:
    """Another execution has the key, for ``seconds`` at most."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was used for another request, or for this one with other credentials."""


Claim = Taken | Stored | Running | Mismatch


def is_key(key: str) -> bool:
    """Whether it can be one: printable ASCII, as RFC 8941 strings are."""
    return 0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()


def fingerprint(request: HttpRequest) -> bytes:
    """What makes two requests the same: method, path, query, kind of content, and body."""
    kind = next((value for name, value in request.headers if name == "content-type"), "")
    return _digest((request.method, request.path, request.query, kind), request.body)


def caller_of(request: HttpRequest, key: str) -> bytes:
    """Whose key it is, as far as we can tell: a hash of what the request carries to prove that to the app."""
    shown = sorted((name, value) for name, value in request.headers if name in CREDENTIALS)
    return _digest((key, *(part for header in shown for part in header)))


def _digest(parts: Iterable[str], rest: bytes = b"") -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "replace")
        digest.update(b"%d:" % len(data) + data)
    digest.update(rest)
    return digest.digest()


class Keys:
    """Idempotency keys in the database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(
        self, tenant: str, endpoint: str, key: str, request: HttpRequest, execution: UUID, seconds: float
    ) -> Claim:
        """Take the key for ``execution``, for as long as it may run. Raises psycopg.Error."""
        values = [tenant, endpoint, key, caller_of(request, key), fingerprint(request), execution, seconds]
        async with self._pool.connection() as connection:
            row = await (await connection.execute(CLAIM, values)).fetchone()
        assert row is not None
        match row:
            case ("taken", *_):
                return Taken()
            case ("other", *_):
                return Mismatch()
            case ("running", wait, *_):
                return Running(wait)
        _, _, status, headers, body = row
        return Stored(Answer(status, [*((str(name), str(value)) for name, value in headers), REPLAYED], bytes(body)))

    async def release(self, tenant: str, endpoint: str, key: str, execution: UUID) -> None:
        """Nothing came of this execution. Raises psycopg.Error."""
        async with self._pool.connection() as connection:
            await connection.execute(RELEASE, [tenant, endpoint, key, execution])
