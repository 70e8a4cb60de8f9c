"""``/metrics``: the figures of all parts for Prometheus, for who is on this host or has a token."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

import psycopg
import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from circuit_script.access.roles import Act
from circuit_script.access.tokens import PREFIX, person_of_token
from circuit_script.db.pool import Pool
from circuit_script.effects.figures import EffectFigures
from circuit_script.events.figures import RoadFigures
from circuit_script.gateway.status import only_this_host
from circuit_script.governor.figures import MoneyFigures
from circuit_script.judgment.figures import VerdictFigures
from circuit_script.telemetry.metrics import Board, Figures

log = structlog.get_logger()

EVERY = 5.0  # seconds between two looks, at least
SHARE = 20  # a look that took 1 s is the last one for 20 s: who watches uses at most a twentieth of a core
AGAIN = 15.0  # seconds until the next one where one brought nothing
PATIENCE = 4.0  # seconds that one look may take; Prometheus waits for 10
GRACE = 0.5  # seconds more in which it says so; to give up a connection that stands still takes longer
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsReader:
    """Counts at most every `EVERY` seconds, however many ask. ``budget`` is what models may cost in a day."""

    def __init__(self, pool: Pool, budget: float | None = None) -> None:
        self._pool = pool
        self._road = RoadFigures()
        self._effects = EffectFigures()
        self._money = MoneyFigures(budget)
        self._verdicts = VerdictFigures()
        self._board = Board()
        self._turn = asyncio.Lock()
        self._version = version("circuit-script")
        self._text = b""
        self._next = 0.0
        self._look: asyncio.Task[Figures | None] | None = None

    async def read(self) -> bytes:
        """Prometheus's text. While the database is away: the figures of before, and circuit_up 0."""
        async with self._turn:
            if time.monotonic() >= self._next:
                began = time.monotonic()
                up = await self._looked()
                self._board.put({"circuit_up": {(): float(up)}, "circuit_build_info": {(self._version,): 1.0}})
                # With many handlers it is long, and deliveries must not wait for it.
                self._text = await asyncio.to_thread(self._board.text)
                ended = time.monotonic()
                self._next = ended + (max(EVERY, SHARE * (ended - began)) if up else AGAIN)
            return self._text

    async def may_look(self, token: str) -> bool:
        """Whether this personal token is one of somebody who may see all tenants. Raises psycopg.Error, OSError."""
        async with asyncio.timeout(PATIENCE), self._pool.connection(timeout=PATIENCE) as connection:
            person = await person_of_token(connection, token)
        return person is not None and person.may(Act.see, None)

    async def _looked(self) -> bool:
        """Put up new figures; whether there are any soon enough."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._count(), name="metrics")
        ended, _ = await asyncio.wait({self._look}, timeout=PATIENCE + GRACE)
        figures = self._look.result() if ended else None
        self._board.put(figures or {})
        return figures is not None

    async def _count(self) -> Figures | None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE), self._pool.connection(timeout=PATIENCE) as connection:
                figures, at = await self._road.read(connection)
                figures |= await self._effects.read(connection, at)
                figures |= await self._money.read(connection, at)
                figures |= await self._verdicts.read(connection)
        except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
            if isinstance(error, TimeoutError):
                self._road.look_less_far()
            log.warning("metrics.database", error=repr(error), next="the figures are those of before")
            return None
        if time.monotonic() - began < PATIENCE / 8:
            self._road.look_farther()
        return figures | {"circuit_looked_timestamp_seconds": {(): at.timestamp()}}


def metrics_routes(reader: MetricsReader) -> APIRouter:
    """The route. What it tells crosses tenants, as the status page does."""
    router = APIRouter()

    async def allowed(request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(PREFIX):
            return only_this_host(request)
        try:
            if await reader.may_look(token):
                return None
        except (psycopg.Error, OSError):  # TimeoutError is an OSError
            raise HTTPException(503, "The database is away.") from None
        raise HTTPException(403, "The token is not one of somebody who may see all tenants.")

    @router.get("/metrics", dependencies=[Depends(allowed)], include_in_schema=False)
    async def metrics() -> Response:
        return Response(await reader.read(), media_type=MEDIA_TYPE, headers={"cache-control": "no-store"})

    return router
