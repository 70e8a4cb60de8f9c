"""What connectors to vendors are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

from circuit_script.config import ConnectorSettings
from circuit_script.db.pool import Pool


class Secrets(Protocol):
    """Keys and tokens by tenant and name; the tenant "" is everybody."""

    async def get(self, tenant: str, name: str) -> str: ...

    async def put(self, tenant: str, name: str, value: str) -> None: ...


class Sealer(Protocol):
    """Closes and opens what lies in the database; ``of`` says what it is, and it opens as that only."""

    def seal(self, text: str, of: str) -> bytes: ...

    def open(self, sealed: bytes, of: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """For one connector: what circuit.toml says of it, the ``client`` that carries its requests, where its secrets are,
    and the database, in which its tokens may be, with what seals them. The last three are None for who only asks what
    it promises. ``accounts`` are the vendor's accounts of each tenant."""

    settings: ConnectorSettings
    client: httpx.AsyncClient
    secrets: Secrets | None = None
    database: Pool | None = None
    sealer: Sealer | None = None
    accounts: Mapping[str, tuple[str, ...]] | None = None

    def account(self, tenant: str) -> str:
        """The account of a tenant: its first one, else the connector's own; empty for none."""
        own = (self.accounts or {}).get(tenant, ())
        return own[0] if own else self.settings.account
