"""``/api/v1/limits``: what executions used of their limits, who used most, which limits were crossed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response

from circuit_script.gateway.api.bodies import MOST, answer, problems
from circuit_script.gateway.api.caller import SECURITY, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRoute
from circuit_script.telemetry.usage import breaches_of, usage_of, users_of

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["limits"], dependencies=SECURITY)


@router.get("/limits", responses=problems())
async def limits(
    caller: Looks,
    days: Annotated[float, Query(gt=0, le=31, description="Of the last so many days.")] = 1,
    top: Annotated[int, Query(ge=1, le=MOST)] = 20,
) -> Response:
    """By handler and limit: how many executions, the most that one used, and what 95 % of them stayed below."""
    async with caller.looking() as connection:
        usage = await usage_of(connection, days)
        users = await users_of(connection, days, top)
        breaches = await breaches_of(connection, days, top)
    used = [{"handler": handler, "limit": limit, **asdict(each)} for (handler, limit), each in usage.items()]
    return answer({"limits": used, "users": users, "breaches": breaches})
