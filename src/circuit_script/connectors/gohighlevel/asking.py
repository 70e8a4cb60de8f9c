"""One request to GoHighLevel: within the location's limit, with the version that its part of the API wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import SlowDown
from circuit_script.connectors.gohighlevel.faults import told_of
from circuit_script.connectors.pace import MustWait, Pace
from circuit_script.errors import QueryRefused

READ_PATIENCE = 12.0  # seconds that a read waits for its turn: a handler waits with it
WRITE_PATIENCE = 1.0  # a write comes again by itself


class Asking:
    """Requests of all tenants. Raises Failed, and for reads NotConnected."""

    def __init__(self, api: Api, pace: Pace) -> None:
        self.api = api
        self.pace = pace

    async def location(self, tenant: str) -> str:
        """The location that the tenant is connected to."""
        return (await self.api.access(tenant)).account

    async def ask(
        self,
        tenant: str,
        version: str,
        method: str,
        path: str,
        *,
        writes: bool = False,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> Any:
        """The JSON of the answer."""
        try:
            async with self.pace.turn(tenant, WRITE_PATIENCE if writes else READ_PATIENCE) as turn:
                response: httpx.Response | None = None
                try:
                    response = await self.api.send(
                        tenant, method, path, writes=writes, params=params, json=json, headers={"version": version}
                    )
                except Failed as failed:
                    response = failed.response
                    raise
                finally:
                    if response is not None:
                        turn.told = told_of(response)
        except MustWait as wait:
            raise Failed(SlowDown(str(wait), wait.seconds)) from None
        try:
            return response.json()
        except (ValueError, RecursionError):
            return None


def place(pattern: str, *, id_: str = "", contact: str = "", location: str = "") -> str:
    """A path; what is put into it stays one part of it. Raises QueryRefused for what means another path."""
    parts = {"id": id_, "contact": contact, "location": location}
    for name, value in parts.items():
        if f"{{{name}}}" in pattern and value in ("", ".", ".."):
            raise QueryRefused(f"{value!r} is no id of GoHighLevel's.")
    return pattern.format(**{name: quote(value, safe="") for name, value in parts.items()})
