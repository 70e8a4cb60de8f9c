"""``/api/v1/judge``: what the Judgment Protocol says of texts; also at ``/v1/judge``. Nothing of them is kept."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Response

from circuit_script.gateway.api.bodies import Asked, answer, body_of, problems, takes
from circuit_script.gateway.api.caller import SECURITY, Looks
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute

router = APIRouter(route_class=ApiRoute, tags=["judgment"], dependencies=SECURITY)
MOST = 100  # texts of one request
LONGEST = 256 * 1024  # characters of all of them: what comes in meanwhile must not wait for the interpreter

Name = Annotated[str, msgspec.Meta(max_length=200)]


class Judge(Asked):
    """One text, or several; ``source`` and ``field`` are where they come from, for the policy."""

    text: str | None = None
    texts: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST)] | None = None
    source: Name | None = None
    field: Name | None = None


@router.post("/v1/judge", include_in_schema=False)
@router.post(PREFIX + "/judge", responses=problems(body=True), openapi_extra=takes(Judge))
async def judge(caller: Looks, asked: Annotated[Any, body_of(Judge, nul=True)]) -> Response:
    """A verdict for the text, or `items` with one for each of the texts, by the policy of the tenant."""
    if (asked.text is None) == (asked.texts is None):
        raise ApiRefused(422, "invalid", "Send a text, or texts.")
    texts = [asked.text] if asked.texts is None else asked.texts
    if sum(map(len, texts)) > LONGEST:
        raise ApiRefused(413, "too-large", f"At most {LONGEST:,} characters are judged at once.")
    async with caller.api.judging():  # beside the loop
        found = await asyncio.to_thread(caller.api.verdicts, texts, asked.source, asked.field, caller.tenant)
    return answer(found[0] if asked.texts is None else {"items": found})
