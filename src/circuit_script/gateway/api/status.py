"""``/api/v1/status``: how the road does, now."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from circuit_script.events.looking import overview
from circuit_script.gateway.api.bodies import answer, problems
from circuit_script.gateway.api.caller import SECURITY, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRoute

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["status"], dependencies=SECURITY)


@router.get("/status", responses=problems())
async def status(caller: Looks) -> Response:
    """Events per minute, times, errors, spend, what waits, what is in trouble."""
    async with caller.looking() as connection:
        found = await overview(connection)
    return answer({**asdict(found), "per_minute": found.per_minute, "errors": found.errors})
