"""Calls that nobody has authenticated yet: they come from an author's own web application, which has no database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from circuit_script.endpoints.protocol import Answer, Call
from circuit_script.endpoints.reply import Answering, Caller, not_found, problem
from circuit_script.endpoints.routes import Found
from circuit_script.tenants.callers import NotAdmitted, admit, without_keys
from circuit_script.tenants.keys import KeyRing


class Admission:
    """Stands between door and answerer: a call without a tenant gets the one that its API key names.

    ``find`` says which endpoint a call means.
    """

    def __init__(self, answering: Answering, ring: KeyRing, find: Callable[[Call], Found | None]) -> None:
        self._answering = answering
        self._ring = ring
        self._find = find

    async def answer(self, call: Call, caller: Caller) -> None:
        """Answer the call, or say why not."""
        if not call.tenant:
            admitted = await self._admitted(call)
            if isinstance(admitted, Answer):
                caller.send(admitted)
                return
            call = admitted
        await self._answering.answer(call, caller)

    async def _admitted(self, call: Call) -> Call | Answer:
        found = self._find(call)
        if found is None or found.offer is None:
            return not_found(call, found)
        headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in call.request.headers]
        try:
            tenant = await admit(self._ring, headers, found.offer.spec.auth)
        except NotAdmitted as refused:
            answer = problem(refused.status, refused.detail, refused.reason)
            return msgspec.structs.replace(answer, headers=list((dict(answer.headers) | refused.headers).items()))
        # A handler gets no credential of the platform.
        kept = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in without_keys(headers))
        request = replace(call.request, method=found.method, headers=kept)
        return msgspec.structs.replace(
            call, endpoint=found.offer.name, tenant=tenant, request=request, auth=found.offer.spec.auth
        )
