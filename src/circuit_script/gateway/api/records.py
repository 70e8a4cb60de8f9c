"""``/api/v1/records``: everything that ever happened to a record."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from circuit_script.access import Act
from circuit_script.events.looking import find_records, story_of_record
from circuit_script.gateway.api.bodies import MOST, answer, problems
from circuit_script.gateway.api.caller import SECURITY, Caller, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute, not_found

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["records"], dependencies=SECURITY)


@router.get("/records", responses=problems())
async def find(caller: Looks, record: Annotated[str, Query(min_length=1, max_length=1000)]) -> Response:
    """What is known under that id: a contact, a deal, a job."""
    _one_tenant(caller)
    async with caller.looking() as connection:
        return answer({"items": await find_records(connection, record)})


@router.get("/records/{object}/{record:path}", responses=problems())
async def story(
    caller: Looks,
    object: Annotated[str, Path(max_length=200)],
    record: Annotated[str, Path(max_length=1000)],
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="The `older` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 40,
) -> Response:
    """What came, what became of it, what was written, what died; the newest first. `data` is the record as it is."""
    _one_tenant(caller)
    async with caller.looking() as connection:
        found = await story_of_record(connection, object, record, before=before, limit=limit)
    if found is None:
        raise not_found("record")
    return answer(found if caller.may(Act.see_payload) else replace(found, data=None))


def _one_tenant(caller: Caller) -> None:
    """Two tenants may have a record of the same id: they are not one. Raises ApiRefused."""
    if caller.tenant is None:
        raise ApiRefused(400, "tenant", "A record is one tenant's: say whose, ?tenant=NAME.")
