"""``/api/v1/in-doubt``: effects of which nobody knows whether the vendor did them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Response

from circuit_script.access import Act
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import Decision, Doubt, doubts, find_doubt, known_of, settle_doubt
from circuit_script.gateway.api.bodies import MOST, USUAL, Asked, answer, body_of, page, problems, takes
from circuit_script.gateway.api.caller import SECURITY, Caller, Looks, calling
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute, conflict, not_found

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["effects in doubt"], dependencies=SECURITY)


class Settle(Asked):
    """What a person found out at the vendor's: `done`, send it again (`repeat`), or leave it (`discard`)."""

    decision: Decision
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    vendor_id: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None


@router.get("/in-doubt", responses=problems())
async def list_(
    caller: Looks,
    record: str | None = None,
    connector: str | None = None,
    before: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL,
) -> Response:
    """Effects in doubt, the newest first."""
    async with caller.acting() as connection:
        found = await doubts(
            connection, limit + 1, tenant=caller.tenant, record=record, connector=connector, before=before
        )
    found = [_seen(each, caller) for each in found]
    return answer(page(found, limit, str(found[limit - 1].id) if len(found) > limit else None))


@router.get("/in-doubt/{effect}", responses=problems())
async def one(caller: Looks, effect: UUID) -> Response:
    """Everything that may help to decide."""
    async with caller.acting() as connection:
        try:
            known = await known_of(connection, await find_doubt(connection, str(effect), caller.tenant), caller.tenant)
        except LetterRefused:
            raise not_found("effect in doubt") from None
    return answer(replace(known, doubt=_seen(known.doubt, caller)))


@router.post("/in-doubt/{effect}/settle", responses=problems(409, body=True), openapi_extra=takes(Settle))
async def settle(
    caller: Annotated[Caller, calling(Act.settle)], effect: UUID, asked: Annotated[Any, body_of(Settle)]
) -> Response:
    """Settle it, once you have looked at the vendor's. Who, when and how you know is kept."""
    if asked.vendor_id is not None and asked.decision is not Decision.done:
        raise ApiRefused(422, "invalid", "vendor_id goes with the decision done.")
    async with caller.acting() as connection:
        try:
            found = await find_doubt(connection, str(effect), caller.tenant)
        except LetterRefused:
            raise not_found("effect in doubt") from None
        try:
            await settle_doubt(connection, found, asked.decision, caller.name, asked.reason, vendor_id=asked.vendor_id)
        except LetterRefused as refused:
            raise conflict(refused) from None
    return answer({"effect": effect, "decision": asked.decision, "by": caller.name})


def _seen(doubt: Doubt, caller: Caller) -> Doubt:
    return doubt if caller.may(Act.see_payload) else replace(doubt, payload={})
