"""Who calls the API, for which tenant, and whether that person may do what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import structlog
from fastapi import Depends, Query, Request
from fastapi.security import APIKeyCookie, HTTPBearer

from circuit_script import access
from circuit_script.access import Act, Person
from circuit_script.config import Settings
from circuit_script.db.pool import Connection, Pool, tenant_reading
from circuit_script.gateway.api.refused import ApiRefused
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.settings_judgment import JudgmentSettings
from circuit_script.settings_spans import seconds_of
from circuit_script.tenants.accounts import TenantMap

log = structlog.get_logger()

PATIENCE = 5.0  # seconds: for a connection, and for one statement of a look
MAX_AT_ONCE = 32  # requests that have a connection, or wait for one
MAX_SIGNING_IN = 16  # that wait while passwords are compared
MAX_JUDGING = 16  # requests whose texts are judged, one after the other, or wait for it
MAX_SENDING = 2  # releases that are received: each is held in memory
POOL = 3  # connections
SIGNING_IN = 2  # connections that signing in may hold: whoever guesses leaves one to those who are in
BEARER = "bearer "
_LIMIT = "SELECT set_config('statement_timeout', %s, true)"

_schemes = [
    Depends(APIKeyCookie(name=access.COOKIE, scheme_name="session", auto_error=False)),
    Depends(HTTPBearer(scheme_name="person", auto_error=False, description="Made by circuit-script people token.")),
]


@dataclass(frozen=True, slots=True)
class Api:
    """What the API works with. ``url`` is the address by which people come, ``lasts`` the seconds of a sign-in."""

    pool: Pool
    tenants: TenantMap
    url: str
    lasts: float
    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)  # it takes two connections
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))
    signing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIGNING_IN))
    waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SIGNING_IN))
    judgment: JudgmentSettings = field(default_factory=JudgmentSettings)
    counts: VerdictCounts = field(default_factory=VerdictCounts)
    one_judges: asyncio.Lock = field(default_factory=asyncio.Lock)  # it computes: two at once are not faster
    sending: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SENDING))
    to_judge: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_JUDGING))

    @classmethod
    def of(cls, settings: Settings, pool: Pool) -> Api:
        dashboard = settings.dashboard
        lasts = seconds_of(dashboard.session)
        return cls(pool, TenantMap(settings.accounts), dashboard.url, lasts, judgment=settings.judgment)

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection. Who is slow in sending holds none. Raises ApiRefused when too many want one."""
        _refuse_surplus(self.turns)
        async with self.turns, self.pool.connection(PATIENCE) as connection:
            yield connection

    @asynccontextmanager
    async def connection_to_sign_in(self) -> AsyncIterator[Connection]:
        """The same for somebody who is nobody yet."""
        _refuse_surplus(self.waiting)
        async with self.waiting, self.signing, self.connection() as connection:
            yield connection

    @asynccontextmanager
    async def judging(self) -> AsyncIterator[None]:
        """The turn to judge. Raises ApiRefused when too many want one."""
        _refuse_surplus(self.to_judge)
        async with self.to_judge, self.one_judges:
            yield

    def verdicts(
        self, texts: Sequence[str], source: str | None, field_: str | None, tenant: str | None
    ) -> list[dict[str, Any]]:
        """What is to be thought of each text: for a thread of its own. The first to ask loads the protocol."""
        from circuit_script.judgment import telling  # expressions and weights: most gateways judge nothing

        judge = telling.protocol_of(self.judgment).judge
        found = [judge(each, source=source, field=field_, tenant=tenant) for each in texts]
        for each in found:
            self.counts.add("api", each.action)
            if each.passed_by is not None:
                log.info(
                    "judgment.passes", tenant=tenant, field=field_, rule=each.passed_by, score=round(each.score, 3)
                )
        return [telling.as_json(each, text) for each, text in zip(found, texts, strict=True)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for ``tenant`` (None: for all at once)."""

    api: Api
    person: Person
    tenant: str | None

    @property
    def name(self) -> str:
        """What is written down of who did it."""
        return self.person.name

    def may(self, act: Act) -> bool:
        return self.person.may(act, self.tenant)

    def must(self, act: Act) -> None:
        """Raises ApiRefused unless the person may do that."""
        if not self.may(act):
            role = self.person.role_in(self.tenant)
            raise ApiRefused(403, "role", f"As {role} of {self.tenant or 'all tenants'} you may not {act.value}.")

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees what the tenant may; of who asks for all tenants, everything."""
        async with self.acting() as connection:
            if self.tenant is None:
                async with connection.transaction():
                    await connection.execute("SET TRANSACTION READ ONLY")
                    await connection.execute(_LIMIT, [_milliseconds()])
                    yield connection
            else:
                async with tenant_reading(connection, self.tenant):
                    await connection.execute(_LIMIT, [_milliseconds()])
                    yield connection

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[Connection]:
        """A connection for functions that have transactions of their own, and take the tenant as an argument."""
        async with self.api.connection() as connection:
            yield connection


def api_of(request: Request) -> Api:
    """The API's parts, of this application."""
    found: Api = request.app.state.api
    return found


async def person_of(request: Request) -> Person:
    """Who asks, by session or by token. Raises ApiRefused: 401 for nobody, 403 where another page asks.

    A session's CSRF token is asked for also where something is only read: the pages of an app have this origin, and
    what a script on one of them sends carries the person's cookie.
    """
    api = api_of(request)
    header = request.headers.get("authorization", "")
    if header:
        if header[: len(BEARER)].lower() != BEARER:
            raise _nobody()
        async with api.connection() as connection:
            person = await access.person_of_token(connection, header[len(BEARER) :].strip())
        if person is None:
            raise _nobody()
        return person
    cookie = cookie_of(request)
    async with api.connection() as connection:
        session = await access.session_of(connection, cookie)
    if session is None:
        raise _nobody()
    refuse_foreign(request)
    if not access.same_csrf(session.csrf, request.headers.get(access.CSRF_HEADER)):
        raise ApiRefused(403, "csrf", "The request needs the session's token in the header X-CSRF-Token.")
    return session.person


def refuse_foreign(request: Request) -> None:
    """Raises ApiRefused when a page of another origin asks."""
    headers, url = request.headers, api_of(request).url
    if not access.is_same_origin(headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host"), url):
        raise ApiRefused(403, "csrf", "The request comes from a page of another origin.")


def cookie_of(request: Request) -> str | None:
    """The session's cookie."""
    return access.read_cookie("; ".join(request.headers.getlist("cookie")), secure=api_of(request).secure)


def address_of(request: Request) -> str:
    """Where the request comes from."""
    forwarded = ", ".join(request.headers.getlist("x-forwarded-for"))
    return access.client_address(request.client.host if request.client else "", forwarded or None)


def calling(act: Act) -> Any:
    """The dependency of a route whose caller must be allowed to do this."""

    async def caller(
        request: Request,
        tenant: Annotated[
            str | None,
            Query(max_length=254, description="For this tenant; where you have one only, that is meant. `*`: all."),
        ] = None,
    ) -> Caller:
        person = await person_of(request)
        found = Caller(api_of(request), person, _meant(person, tenant))
        found.must(act)
        return found

    return Depends(caller)


def _meant(person: Person, asked: str | None) -> str | None:
    """The tenant that is asked for; None for all. Another's is like one that there is not. Raises ApiRefused."""
    if asked is None:
        if person.everywhere:
            return None
        if len(person.tenants) == 1:
            return person.tenants[0]
        if not person.tenants:
            raise ApiRefused(403, "role", "You have no role for any tenant.")
        raise ApiRefused(400, "tenant", f"Say for which tenant: ?tenant= one of {', '.join(person.tenants)}.")
    if person.role_in(asked) is None or (asked == access.ALL and not person.everywhere) or not asked.isprintable():
        raise ApiRefused(404, "tenant", "There is no such tenant.")
    return None if asked == access.ALL else asked


def _refuse_surplus(of: asyncio.Semaphore) -> None:
    if of.locked():
        raise ApiRefused(503, "overloaded", "Too many requests are under way.", page="overloaded")


def _nobody() -> ApiRefused:
    detail = "This needs a personal token (Authorization: Bearer csp_…) or a session."
    return ApiRefused(401, "nobody", detail, headers={"www-authenticate": 'Bearer realm="circuit-script api"'})


def _milliseconds() -> str:
    return str(int(PATIENCE * 1000))


Looks = Annotated[Caller, calling(Act.see)]
SECURITY = _schemes
