"""``/api/v1/alerts``: what is wrong, and what a person says to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from circuit_script.access import Act
from circuit_script.clock import now
from circuit_script.gateway.api.bodies import MOST, USUAL, Asked, answer, body_of, problems, takes
from circuit_script.gateway.api.caller import SECURITY, Caller, Looks, calling
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute, not_found
from circuit_script.telemetry.alerts import acknowledge, alerts_of, silence

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["alerts"], dependencies=SECURITY)
LONGEST = timedelta(days=366)

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Meant(Asked):
    """Which alert."""

    key: Key


class Silence(Asked):
    """Which alert nobody is told of until then; a moment that is past ends a silence."""

    key: Key
    until: datetime


@router.get("/alerts", responses=problems())
async def list_(caller: Looks, open_only: bool = True, limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL) -> Response:
    """Alerts, the open and worst first."""
    async with caller.acting() as connection:
        found = await alerts_of(connection, caller.tenant, open_only=open_only, limit=limit)
    return answer({"items": found})


@router.post("/alerts/acknowledge", responses=problems(body=True), openapi_extra=takes(Meant))
async def acknowledge_(
    caller: Annotated[Caller, calling(Act.acknowledge)], asked: Annotated[Any, body_of(Meant)]
) -> Response:
    """Say that you look after it: no further step of its escalation is taken."""
    async with caller.acting() as connection:
        if not await acknowledge(connection, asked.key, caller.name, tenant=caller.tenant):
            raise not_found("open alert")
    return answer({"key": asked.key, "acknowledged_by": caller.name})


@router.post("/alerts/silence", responses=problems(body=True), openapi_extra=takes(Silence))
async def silence_(
    caller: Annotated[Caller, calling(Act.silence)], asked: Annotated[Any, body_of(Silence)]
) -> Response:
    """Have nobody told of it until then."""
    until = asked.until if asked.until.tzinfo else asked.until.replace(tzinfo=UTC)
    if until > now() + LONGEST:
        raise ApiRefused(422, "invalid", "An alert is silenced for a year at most.")
    async with caller.acting() as connection:
        if not await silence(connection, asked.key, until, caller.name, tenant=caller.tenant):
            raise not_found("open alert")
    return answer({"key": asked.key, "silenced_by": caller.name, "silenced_until": until})
