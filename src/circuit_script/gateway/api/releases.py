"""``/api/v1/releases``: what `circuit-script deploy --to` asks: what is live, keep this one, ready it, take it live.

A release is everybody's: whoever asks needs the role for all tenants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.requests import ClientDisconnect

from circuit_script.access import Act
from circuit_script.errors import ReleaseRefused, ReleaseUnknown
from circuit_script.gateway.api.bodies import MOST, Asked, answer, body_of, problems, takes
from circuit_script.gateway.api.caller import SECURITY, Caller, api_of, person_of
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import DEPLOY, ROLLBACK, go_live, warm_up
from circuit_script.releases.sent import MEDIA_TYPE, MOST_SAID, received
from circuit_script.releases.sent import MOST as LARGEST
from circuit_script.releases.standing import course_of, keep_release, listed_of, readiness_of, shown_of, standing_of
from circuit_script.releases.store import ReleaseRow, find_release

log = structlog.get_logger()
router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["releases"], dependencies=SECURITY)

DRAINED = 1024 * 1024  # bytes of a body that is too large that are read
LONGEST_WATCH = 7 * 86_400.0  # seconds
SENT = {
    "requestBody": {
        "required": True,
        "description": f"MessagePack, at most {LARGEST:,} bytes, {MOST_SAID:,} of them beside the archive.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _sent_problems() -> dict[int | str, dict[str, Any]]:
    found = problems(409, body=True)
    found[413]["description"] = f"The body is larger than {LARGEST:,} bytes."
    found[415]["description"] = f"The body is not said to be {MEDIA_TYPE}."
    return found


Which = Annotated[str, Path(max_length=100, description="Its version, its number, or how its hash begins.")]


async def _deploying(request: Request) -> Caller:
    """Who may deploy. Raises ApiRefused."""
    caller = Caller(api_of(request), await person_of(request), None)
    if not caller.may(Act.deploy):
        role = caller.person.role_in(None)
        found = f"you are {role.value} of all" if role else "you have none for all"
        raise ApiRefused(403, "role", f"Releases need the role developer for all tenants; {found}.")
    return caller


Deploys = Annotated[Caller, Depends(_deploying)]


class GoLive(Asked):
    """Take it live in the place of ``expected``: the number of what is live now, 0 where nothing was ever deployed."""

    expected: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    kind: Literal["deploy", "rollback"] = "deploy"
    reason: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    watch: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_WATCH)] | None = None


@router.get("/releases", responses=problems())
async def list_(
    caller: Deploys, since: datetime | None = None, limit: Annotated[int, Query(ge=1, le=MOST)] = 20
) -> Response:
    """The latest releases with executions and errors `since` then (a day), and the latest moves."""
    begin = _moment(since) if since else datetime.now(UTC) - timedelta(days=1)
    async with caller.looking() as connection:
        found = await listed_of(connection, limit, begin)
    items = [_row(each, found.counts.get(each.id, Counts())) for each in found.releases]
    return answer({"since": begin, "items": items, "moves": found.moves})


@router.get("/releases/live", responses=problems())
async def live(caller: Deploys) -> Response:
    """What is live, what was before, how many workers there are, and which version of the platform answers."""
    async with caller.looking() as connection:
        return answer(await standing_of(connection))


@router.get("/releases/moves/{move}", responses=problems())
async def course(caller: Deploys, move: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> Response:
    """Executions and errors of its release since then, and the latest move: another one, if one came."""
    async with caller.looking() as connection:
        with _told():
            return answer(await course_of(connection, move))


@router.post("/releases", responses=_sent_problems(), openapi_extra=SENT, status_code=201)
async def put(caller: Deploys, request: Request) -> Response:
    """Keep a release that has passed the gates. It is not live. The same files are the release that is there."""
    async with _turn(caller):
        body = await _body(request)
        try:
            new = await asyncio.to_thread(received, body, caller.name)
        except ValueError as error:
            raise ApiRefused(422, "invalid", f"That is no release of this version of the platform: {error}") from None
        except ReleaseRefused as refused:
            raise _problem(422, "invalid", refused) from None
        finally:
            body.clear()
        with _told():
            async with caller.acting() as connection:
                kept = await keep_release(connection, new)
    log.info("release.received", release=kept.name, by=caller.name, bytes=len(new.source))
    return answer(kept, 201)


@router.get("/releases/{release}", responses=problems())
async def one(caller: Deploys, release: Which, since: datetime | None = None, whole: bool = False) -> Response:
    """One release with its report; the `whole` of it has moves, workers and counts. `last_started` is when the last
    execution began that began `since` then, of those that have ended."""
    begin = _moment(since) if since else None
    with _told():
        async with caller.looking() as connection:
            return answer(await shown_of(connection, release, begin, whole=whole))


@router.get("/releases/{release}/hosts", responses=problems())
async def hosts(caller: Deploys, release: Which) -> Response:
    """How far each worker is with it: preparing, ready, failed, and why; `instead` are others that are made ready."""
    with _told():
        async with caller.looking() as connection:
            return answer(await readiness_of(connection, await find_release(connection, release)))


@router.post("/releases/{release}/warm", responses=problems(409), status_code=202)
async def warm(caller: Deploys, release: Which) -> Response:
    """Ask every worker to have it ready."""
    with _told():
        async with caller.acting() as connection:
            found = await find_release(connection, release)
            await warm_up(connection, found)
    return answer({"release": found.name}, 202)


@router.post("/releases/{release}/live", responses=problems(409, body=True), openapi_extra=takes(GoLive))
async def go(caller: Deploys, release: Which, asked: Annotated[Any, body_of(GoLive)]) -> Response:
    """Take it live, unless something else is live than expected. The answer is the move."""
    watch = None if asked.watch is None else timedelta(seconds=asked.watch)
    kind = DEPLOY if asked.kind == "deploy" else ROLLBACK
    with _told():
        async with caller.acting() as connection:
            found = await find_release(connection, release)
            move = await go_live(
                connection, found, kind=kind, by=caller.name, reason=asked.reason, watch=watch, expected=asked.expected
            )
    log.info("release.moved", release=found.name, kind=kind, by=caller.name)
    return answer(move)


@asynccontextmanager
async def _turn(caller: Caller) -> AsyncIterator[None]:
    """The turn to send one: few are held in memory at a time. Raises ApiRefused."""
    sending = caller.api.sending
    if sending.locked():
        raise ApiRefused(503, "overloaded", "Other releases are being sent; send again.", page="overloaded")
    async with sending:
        yield


async def _body(request: Request) -> bytearray:
    """What is sent, as far as it may be that much. Raises ApiRefused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise ApiRefused(415, "media-type", f"Send {MEDIA_TYPE}, as `circuit-script deploy --to` does.")
    length = request.headers.get("content-length", "")
    body = bytearray()
    try:
        if length.isdecimal() and int(length[:20]) > LARGEST:
            await _drained(request)
            raise _too_large()
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST:
                raise _too_large()
    except ClientDisconnect:
        raise ApiRefused(400, "incomplete", "It ended before all of it was here.") from None
    return body


async def _drained(request: Request) -> None:
    """Read some of it: who is still sending hears no answer."""
    read = 0
    async for piece in request.stream():
        read += len(piece)
        if read > DRAINED:
            return


def _too_large() -> ApiRefused:
    said = f"A release has at most {LARGEST:,} bytes."
    return ApiRefused(413, "too-large", said, page="deploy", headers={"connection": "close"})


@contextmanager
def _told() -> Iterator[None]:
    """What releases refuse, as a problem."""
    try:
        yield
    except ReleaseUnknown as unknown:
        raise _problem(404, "not-found", unknown) from None
    except ReleaseRefused as refused:
        raise _problem(409, "refused", refused) from None


def _problem(status: int, reason: str, error: ReleaseRefused) -> ApiRefused:
    said = " ".join(each for each in (error.detail, error.cure) if each)
    return ApiRefused(status, reason, said, page=error.page)


def _row(release: ReleaseRow, counts: Counts) -> dict[str, Any]:
    """Of a list: without its report, which may be long."""
    short = {name: value for name, value in asdict(release).items() if name not in ("report", "requirements")}
    return {**short, "name": release.name, "executions": counts.executions, "errors": counts.errors}


def _moment(said: datetime) -> datetime:
    return said if said.tzinfo else said.replace(tzinfo=UTC)
