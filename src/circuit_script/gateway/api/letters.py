"""``/api/v1/dead-letters``: look at them, retry, discard or edit them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Response

from circuit_script.access import Act
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import (
    CHUNK,
    Letter,
    Payload,
    Wanted,
    discard,
    find_letter,
    letters,
    retry,
    send_edited,
    story_of,
)
from circuit_script.gateway.api.bodies import MOST, USUAL, Asked, answer, body_of, page, problems, takes
from circuit_script.gateway.api.caller import SECURITY, Caller, Looks, calling
from circuit_script.gateway.api.refused import PREFIX, ApiRoute, conflict, not_found

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["dead letters"], dependencies=SECURITY)

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


class Several(Asked):
    """Which letters."""

    ids: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]], msgspec.Meta(min_length=1, max_length=CHUNK)]


class Left(Several):
    """Which letters are left as they are, and why."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Edit(Asked):
    """The payload in the place of the letter's own."""

    fields: dict[str, Any]


@router.get("/dead-letters", responses=problems())
async def list_(
    caller: Looks,
    status: Literal["open", "retried", "discarded", "all"] = "open",
    trigger: str | None = None,
    record: str | None = None,
    reason: str | None = None,
    kind: Literal["event", "effect"] | None = None,
    since: datetime | None = None,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL,
) -> Response:
    """Dead letters, the newest first."""
    wanted = Wanted(None if status == "all" else status, trigger, caller.tenant, record, reason, kind, since)
    async with caller.acting() as connection:
        found = await letters(connection, wanted, limit + 1, before=before)
    found = [_seen(each, caller) for each in found]
    return answer(page(found, limit, str(found[limit - 1].id) if len(found) > limit else None))


@router.get("/dead-letters/{letter}", responses=problems())
async def one(caller: Looks, letter: Number) -> Response:
    """All that is known of one: payload, attempts, log lines, the vendor's answers."""
    async with caller.acting() as connection:
        try:
            story = await story_of(connection, await find_letter(connection, letter, caller.tenant), caller.tenant)
        except LetterRefused:
            raise not_found("dead letter") from None
    if not caller.may(Act.see_payload):
        story = replace(story, letter=_seen(story.letter, caller), payload=Payload(None, "your role may not see it"))
    return answer(story)


@router.post("/dead-letters/retry", responses=problems(body=True), openapi_extra=takes(Several))
async def retry_(caller: Annotated[Caller, calling(Act.retry)], asked: Annotated[Any, body_of(Several)]) -> Response:
    """Put their events back on the queue, and hand their effects to the courier again. What became of each."""
    async with caller.acting() as connection:
        try:
            return answer({"items": await retry(connection, asked.ids, caller.name, tenant=caller.tenant)})
        except LetterRefused:
            raise not_found("dead letter") from None


@router.post("/dead-letters/discard", responses=problems(body=True), openapi_extra=takes(Left))
async def discard_(caller: Annotated[Caller, calling(Act.discard)], asked: Annotated[Any, body_of(Left)]) -> Response:
    """Leave them as they are, for good. What became of each."""
    async with caller.acting() as connection:
        try:
            fates = await discard(connection, asked.ids, caller.name, asked.reason, tenant=caller.tenant)
        except LetterRefused:
            raise not_found("dead letter") from None
    return answer({"items": fates})


@router.post("/dead-letters/{letter}/edit", responses=problems(409, body=True), openapi_extra=takes(Edit))
async def edit(
    caller: Annotated[Caller, calling(Act.edit)], letter: Number, asked: Annotated[Any, body_of(Edit)]
) -> Response:
    """Retry it with another payload; the old one is kept."""
    async with caller.acting() as connection:
        try:
            await find_letter(connection, letter, caller.tenant)
        except LetterRefused:
            raise not_found("dead letter") from None
        try:
            return answer(await send_edited(connection, letter, asked.fields, caller.name, tenant=caller.tenant))
        except LetterRefused as refused:
            raise conflict(refused) from None


def _seen(letter: Letter, caller: Caller) -> Letter:
    return letter if caller.may(Act.see_payload) else replace(letter, was=None)
