"""``/api/v1/traces``: what an execution did, step by step."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from circuit_script.gateway.api.bodies import answer, problems
from circuit_script.gateway.api.caller import SECURITY, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRoute, not_found
from circuit_script.telemetry.traces import find_executions, read_trace

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["traces"], dependencies=SECURITY)
MOST = 20  # executions of one id


@router.get("/traces/{id}", responses=problems())
async def trace(caller: Looks, id: UUID) -> Response:
    """The traces of an execution, a delivery, an effect, or a trace id that others gave."""
    async with caller.acting() as connection:
        executions = await find_executions(connection, id, caller.tenant, MOST)
        found = [await read_trace(connection, each, caller.tenant) for each in executions]
    if not any(found):
        raise not_found("trace")
    return answer({"items": [each for each in found if each]})
