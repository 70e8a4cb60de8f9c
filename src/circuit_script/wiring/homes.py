"""Settings → where records live: the vendors, and the CRM that reads each object where it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx

from circuit_script.config import Settings
from circuit_script.connectors.connector import CRM, Connector
from circuit_script.connectors.homes import LOCAL, HomedCRM, Homes, homes_of
from circuit_script.connectors.local import LocalCRM
from circuit_script.connectors.parts import Secrets
from circuit_script.connectors.registry import Registry, make_registry, make_vendors, vendors_named
from circuit_script.db.pool import Pool
from circuit_script.secrets.keys import Keys


@dataclass(frozen=True, slots=True)
class Housing:
    """The connectors of a process, the CRM of its handlers, and where objects live; ``home`` is None where all of them
    live here, so that nobody asks for each."""

    connectors: Registry
    crm: CRM
    home: Callable[[str, str], str] | None

    def of(self, tenant: str, object_: str) -> str:
        """The connector that keeps an object of a tenant."""
        return LOCAL if self.home is None else self.home(tenant, object_)

    async def twins(self, tenant: str, object_: str) -> Mapping[str, str]:
        """The keys of the fields that an object's vendor calls by ids in its webhooks, as far as they are at hand."""
        vendor = self.connectors.get(self.of(tenant, object_))
        ask: Callable[[str, str], Awaitable[Mapping[str, str]]] | None = getattr(vendor, "twins_at_hand", None)
        return {} if ask is None else await ask(tenant, object_)


def make_housing(
    settings: Settings, database: Pool, client: httpx.AsyncClient, secrets: Secrets, *own: Connector
) -> Housing:
    """``client`` carries the requests of connectors, ``own`` are those that are no vendor's. Raises ConfigError for a
    home that keeps no records."""
    vendors: list[Connector] = []
    if vendors_named(settings):
        vendors = make_vendors(settings, client, secrets, database, Keys(settings))
    connectors = make_registry(settings.addresses, client, *own, *vendors)
    homes: Homes | None = homes_of(settings, connectors)
    local = LocalCRM(database)
    if homes is None:
        return Housing(connectors, local, None)
    return Housing(connectors, HomedCRM(homes, local, database), homes.of)
