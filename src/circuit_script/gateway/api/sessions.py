"""``/api/v1/session``: sign in, look who you are, sign out."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from circuit_script import access
from circuit_script.access import Person, Refused, Session, SignedIn
from circuit_script.gateway.api.bodies import HEADERS, Asked, answer, body_of, problems, takes
from circuit_script.gateway.api.caller import SECURITY, address_of, api_of, cookie_of, person_of, refuse_foreign
from circuit_script.gateway.api.refused import PREFIX, ApiRefused, ApiRoute

router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["session"])


class SignIn(Asked):
    """Who signs in."""

    name: str
    password: str


@router.post("/session", responses=problems(body=True), openapi_extra=takes(SignIn), status_code=201)
async def sign_in(request: Request, asked: Annotated[Any, body_of(SignIn)]) -> Response:
    """Sign in. The answer sets the session's cookie; `csrf` goes with every later request, as X-CSRF-Token."""
    refuse_foreign(request)
    api = api_of(request)
    async with api.connection_to_sign_in() as connection:
        found = await access.sign_in(
            connection, asked.name, asked.password, address_of(request), lasts=api.lasts,
            replaces=cookie_of(request) or "",
        )  # fmt: skip
    match found:
        case Refused(wait):
            later = {"retry-after": str(math.ceil(wait))} if wait else {}
            said = f" Wait {math.ceil(wait)} s before you try again." if wait else ""
            raise ApiRefused(401, "sign-in", f"The name or the password is wrong.{said}", headers=later)
        case SignedIn(cookie, session):
            made = answer(_shown(session.person, session), 201)
            made.headers["set-cookie"] = access.set_cookie(cookie, api.lasts, secure=api.secure)
            return made


@router.get("/session", responses=problems(), dependencies=SECURITY)
async def look(request: Request, person: Annotated[Person, Depends(person_of)]) -> Response:
    """Who you are, and what you may do for whom."""
    session = None
    if "authorization" not in request.headers:
        async with api_of(request).connection() as connection:
            session = await access.session_of(connection, cookie_of(request), touch=False)
    return answer(_shown(person, session))


@router.delete("/session", responses=problems(), dependencies=SECURITY, status_code=204)
async def sign_out(
    request: Request, person: Annotated[Person, Depends(person_of)], everywhere: bool = False
) -> Response:
    """Sign out; with `everywhere` all your sessions end."""
    api = api_of(request)
    async with api.connection() as connection:
        if everywhere:
            await access.sign_out_everywhere(connection, person.id)
        else:
            await access.sign_out(connection, cookie_of(request))
    forgotten = access.set_cookie("", 0, secure=api.secure)
    return Response(status_code=204, headers={**HEADERS, "set-cookie": forgotten})


def _shown(person: Person, session: Session | None) -> dict[str, Any]:
    return {
        "person": person.name,
        "roles": person.memberships,
        "csrf": session.csrf if session else None,
        "ends": session.ends if session else None,
    }
