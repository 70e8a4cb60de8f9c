"""Bodies of requests and answers: JSON, bounded, of a known shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from fastapi import Depends, Request, Response

from circuit_script.gateway.api.refused import ApiRefused
from circuit_script.problems import MEDIA_TYPE

MAX_BODY = 1024 * 1024  # bytes
MOST = 200  # rows of one page
USUAL = 50
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

T = TypeVar("T", bound=msgspec.Struct)
_PROBLEMS = {
    400: "Something of the request is wrong.",
    401: "The token or the session is missing, wrong or over.",
    403: "The role does not allow it, or the session's X-CSRF-Token is missing.",
    404: "There is none, or it is another tenant's.",
    409: "It cannot be done as things stand.",
    413: f"The body is larger than {MAX_BODY:,} bytes.",
    415: "The body is not said to be JSON.",
    422: "A value is not what is expected.",
    503: "The database is away, or too much is asked for at once.",
}


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What a request carries. A field that nobody knows is refused: it may be a misspelt one."""


def body_of(kind: type[T], *, nul: bool = False) -> Any:
    """The dependency of a route that takes a JSON body of this kind. ``nul`` says that its texts may hold NUL, which
    none of the database's can."""

    async def read(request: Request) -> T:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise ApiRefused(415, "media-type", "Send JSON, with Content-Type: application/json.")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                raise ApiRefused(
                    413, "too-large", f"A body has at most {MAX_BODY:,} bytes.", headers={"connection": "close"}
                )
        try:
            found = msgspec.json.decode(bytes(body), type=kind)
        except (msgspec.DecodeError, RecursionError) as error:  # also of what is JSON, but of another shape
            raise ApiRefused(422, "invalid", f"The body is not as expected: {error}"[:500]) from None
        if not nul and b"\\u0000" in body and _has_nul(msgspec.to_builtins(found)):
            raise ApiRefused(422, "invalid", "A text holds a NUL character.")
        return found

    return Depends(read)


def takes(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What the document of the API says of such a body: for ``openapi_extra`` of its route."""
    schema = msgspec.json.schema_components([kind])[1][kind.__name__]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What the document says of refusals, besides those of every route."""
    every = (400, 401, 403, 404, 422, 503, *statuses, *((413, 415) if body else ()))
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in sorted(set(every))}


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer that nobody keeps."""
    return Response(msgspec.json.encode(value), status, HEADERS, "application/json")


def page(rows: Sequence[Any], limit: int, cursor: str | None) -> dict[str, Any]:
    """A page: ``next`` is the cursor of the page behind it, null at the end. ``rows`` may have one more than fit."""
    return {"items": rows[:limit], "next": cursor if len(rows) > limit else None}


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(each) for item in value.items() for each in item)
        case list():
            return any(map(_has_nul, value))
        case _:
            return False
