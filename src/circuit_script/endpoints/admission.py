"""Calls that nobody has authenticated yet: they come from an author's own web application, which has no database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec
import psycopg

from circuit_script.endpoints.protocol import Answer, Call, Offer
from circuit_script.endpoints.reply import Caller, problem
from circuit_script.execution.outcome import HttpRequest
from circuit_script.tenants import DEFAULT
from circuit_script.tenants.callers import Header, SeveralKeys, key_in, without_keys
from circuit_script.tenants.keys import KeyRing

CHALLENGE = ("www-authenticate", 'Bearer realm="circuit-script"')


class Answering(Protocol):
    """What answers a call."""

    async def answer(self, call: Call, caller: Caller) -> None: ...


class Admission:
    """Stands between door and runner: a call without a tenant gets the one that its API key names.

    ``offer_of`` finds the endpoint that a call means.
    """

    def __init__(self, runner: Answering, ring: KeyRing, offer_of: Callable[[Call], Offer | None]) -> None:
        self._runner = runner
        self._ring = ring
        self._offer_of = offer_of

    async def answer(self, call: Call, caller: Caller) -> None:
        """Answer the call, or say why not."""
        if not call.tenant:
            admitted = await self._admitted(call)
            if isinstance(admitted, Answer):
                caller.send(admitted)
                return
            call = admitted
        await self._runner.answer(call, caller)

    async def _admitted(self, call: Call) -> Call | Answer:
        offer = self._offer_of(call)
        if offer is None:
            return problem(404, "There is no such endpoint.", "unknown-endpoint")
        headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in call.request.headers]
        try:
            key = key_in(headers)
        except SeveralKeys:
            return problem(400, "The request carries more than one API key.", "several-keys")
        if key is None and offer.spec.auth == "none":
            return msgspec.structs.replace(call, endpoint=offer.name, tenant=DEFAULT)
        try:
            tenant = None if key is None else await self._ring.tenant(key)
        except (psycopg.Error, OSError):
            return problem(503, "The database is away: nothing was executed.", "database-unavailable", retry_after=2)
        if tenant is None:
            return _unknown(key)
        return msgspec.structs.replace(call, endpoint=offer.name, tenant=tenant, request=_without_keys(call, headers))


def _unknown(key: str | None) -> Answer:
    words = "This needs an API key: Authorization: Bearer cs_…" if key is None else "The API key is not valid."
    refused = problem(401, words, "no-key" if key is None else "wrong-key")
    return msgspec.structs.replace(refused, headers=[*refused.headers, CHALLENGE])


def _without_keys(call: Call, headers: list[Header]) -> HttpRequest:
    """A handler gets no credential of the platform."""
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in without_keys(headers)]
    return replace(call.request, headers=tuple(kept))
