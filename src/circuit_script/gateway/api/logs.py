"""``/api/v1/logs``: lines of the log, by the words of the search box."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response

from circuit_script.errors import LogQueryRefused
from circuit_script.gateway.api.bodies import answer, problems
from circuit_script.gateway.api.caller import SECURITY, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute, not_found
from circuit_script.telemetry.lines import Cursor, LogQuery
from circuit_script.telemetry.reader import LogReader

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["logs"], dependencies=SECURITY)
MOST = 1000
EXAMPLE = 'level:error handler:score record:4711 since:2h lead=4711 "exact phrase" word'


@router.get("/logs", responses=problems())
async def logs(
    caller: Looks,
    q: Annotated[str, Query(max_length=4000, description=f"What is looked for: `{EXAMPLE}`")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    before: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
) -> Response:
    """Lines, the newest first. `looked_back_to` says how far back was looked where the time for one page was up before
    the page was full: `next` goes on from there."""
    try:
        query = LogQuery.parse(q)
        cursor = None if before is None else Cursor.parse(before)
    except LogQueryRefused as refused:
        said = " ".join(each for each in (refused.detail, refused.cure) if each)
        raise ApiRefused(422, "query", f"{said} (at {refused.position})", page=refused.page) from None
    if caller.tenant is not None and query.tenant not in (None, caller.tenant):
        raise not_found("tenant")
    tenant = caller.tenant or query.tenant
    async with caller.acting() as connection:
        found = await LogReader(connection, replace(query, tenant=tenant, limit=limit, before=cursor)).page()
    return answer({"items": found.lines, "next": found.before, "looked_back_to": found.looked_back_to})
