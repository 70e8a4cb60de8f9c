"""``/api/v1/executions``: what ran, what it handled, and running that again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from circuit_script.access import Act
from circuit_script.errors import ReplayRefused
from circuit_script.events.looking import ExecutionQuery, list_executions, payload_of_event, read_execution
from circuit_script.events.replay import replays
from circuit_script.events.replay.choosing import Choice, Filter, live_routes
from circuit_script.gateway.api.bodies import MOST, USUAL, answer, problems
from circuit_script.gateway.api.caller import SECURITY, Caller, Looks, calling
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute, conflict, not_found

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["executions"], dependencies=SECURITY)

Status = Literal["succeeded", "partial", "failed", "breached", "held", "cancelled", "deferred", "echo", "trouble"]


@router.get("/executions", responses=problems())
async def list_(
    caller: Looks,
    handler: Annotated[str | None, Query(description="Its whole name.")] = None,
    status: Annotated[Status | None, Query(description="`trouble` is whatever a person should look at.")] = None,
    record: str | None = None,
    object: str | None = None,
    delivery: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL,
) -> Response:
    """Executions, the newest first."""
    query = ExecutionQuery(handler, status, record, object, delivery, since, until, before, limit)
    async with caller.looking() as connection:
        found = await list_executions(connection, query)
    return answer({"items": found.rows, "next": found.older})


@router.get("/executions/{id}", responses=problems())
async def one(caller: Looks, id: UUID) -> Response:
    """All that is stored of it but its payloads, log and trace."""
    async with caller.looking() as connection:
        story = await read_execution(connection, id)
    if story is None:
        raise not_found("execution")
    return answer(story)


@router.get("/executions/{id}/payload", responses=problems())
async def payload(
    caller: Annotated[Caller, calling(Act.see_payload)],
    id: UUID,
    event: Annotated[int, Query(ge=0, le=10_000, description="Which of its `events`, from 0.")] = 0,
) -> Response:
    """One of the records that it was given, as the delivery brought it."""
    async with caller.looking() as connection:
        story = await read_execution(connection, id)
        if story is None or event >= len(story.events):
            raise not_found("execution" if story is None else "event")
        seen = story.events[event]
        found, fault = await payload_of_event(connection, seen.delivery, seen.ordinal)
    if isinstance(found, bytes):
        found = found.decode("utf-8", "replace")
    return answer({"delivery": seen.delivery, "ordinal": seen.ordinal, "payload": found, "fault": fault})


@router.post("/executions/{id}/replay", responses=problems(409), status_code=202)
async def replay(caller: Annotated[Caller, calling(Act.replay)], id: UUID) -> Response:
    """Run what it handled again, for real, with the records as they are now."""
    async with caller.looking() as connection:
        if await read_execution(connection, id) is None:
            raise not_found("execution")
    async with caller.api.replaying, caller.acting() as reading, caller.acting() as writing:
        begun = await _begin(caller, id, reading, writing)
    return answer({"replay": begun.id, "events": begun.chosen, "by": begun.by}, 202)


async def _begin(caller: Caller, id_: UUID, reading: Any, writing: Any) -> replays.Replay:
    wanted = Filter(execution=id_, tenant=caller.tenant)
    try:
        choice = Choice(wanted, await live_routes(reading), caller.api.tenants)
        counted = await choice.count(reading)
        if not any(line.items for line in counted if line.left_out is None):
            why = next((line.left_out for line in counted if line.left_out), "its events are no longer in the ledger")
            raise ApiRefused(409, "refused", f"Nothing of it can be run again: {why}.", page="replay")
        return await replays.begin(reading, writing, choice, by=caller.name)
    except ReplayRefused as refused:
        raise conflict(refused) from None
