"""What tests of connectors to CRMs share: secrets in memory, effects, a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx

from circuit_script.clock import uuid7
from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Effect
from circuit_script.connectors.parts import Parts
from circuit_script.errors import SecretMissing


class MemorySecrets:
    """`Secrets` that are gone with the test. ``read`` are the names that were asked for."""

    def __init__(self, **values: str) -> None:
        self.values: dict[tuple[str, str], str] = {}
        self.read: list[tuple[str, str]] = []
        for name, value in values.items():
            self.values["", name.replace("__", ".")] = value

    async def get(self, tenant: str, name: str) -> str:
        self.read.append((tenant, name))
        for each in (tenant, ""):
            if (each, name) in self.values:
                return self.values[each, name]
        raise SecretMissing(f"{name} of {tenant}")

    async def put(self, tenant: str, name: str, value: str) -> None:
        self.values[tenant, name] = value


def parts_of(secrets: MemorySecrets | None, http: httpx.AsyncClient, *accounts: str, **settings: Any) -> Parts:
    """The parts of a connector; ``accounts`` are those of the tenant acme."""
    return Parts(ConnectorSettings(**settings), http, secrets, None, {"acme": accounts})


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=50))


def effect(
    operation: str,
    target: str,
    fields: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
    tenant: str = "acme",
    attempts: int = 0,
) -> Effect:
    """A write of a record, as the platform makes it."""
    made: UUID = uuid7()
    identifier = id or str(made)
    payload: dict[str, Any] = {"id": identifier}
    if operation != "delete":
        payload["fields"] = dict(fields or {})
    return Effect(made, tenant, operation, target, identifier, payload, attempts)
