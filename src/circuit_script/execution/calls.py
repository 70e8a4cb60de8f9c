"""http and send_webhook: how a handler speaks to the outside. A call leaves at once; a send waits for success."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from circuit_script.execution.context import Record
from circuit_script.execution.session import current_record, session


class Response(msgspec.Struct, frozen=True):
    """The answer to a call. ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return json.loads(self.body)


class Http:
    """Calls to the outside through the broker, each counted as a callout."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> Response:
        """Make one call and wait for its answer; ``timeout`` in seconds is cut to the time that is left."""
        sent = dict(headers or {})
        if json is not None:
            body = msgspec.json.encode(json)
            sent.setdefault("content-type", "application/json")
        asked = {
            "method": method.upper(),
            "url": url,
            "headers": sent,
            "body": body.encode() if isinstance(body, str) else body,
            "timeout": timeout,
            "record": current_record.get(),
        }
        return await session().request("http", asked, Response)

    async def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Response:
        """GET the address."""
        return await self.request("GET", url, headers=headers, timeout=timeout)

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> Response:
        """POST a body, or ``json``, to the address."""
        return await self.request("POST", url, headers=headers, body=body, json=json, timeout=timeout)


http = Http()


async def send_webhook(to: str, payload: Mapping[str, Any], *, record: Record | None = None) -> str:
    """Post ``payload`` to the configured address named ``to`` once the execution (or its record) has succeeded.

    Returns the effect's id. It belongs to ``record``, or to the record of the ``context.record`` block around it.
    """
    place = current_record.get() if record is None else record.place
    asked = {"connector": "webhook", "operation": "post", "to": to, "payload": dict(payload), "record": place}
    reply = await session().request("send", asked, dict[str, str])
    return reply["id"]
