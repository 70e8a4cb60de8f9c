"""Homes: which CRM keeps an object of a tenant. The built-in one keeps what no other does.

An app whose objects all live here has no Homes, and pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import psycopg

from circuit_script.config import Settings
from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import CRM, Connector, Fields, LooksUp, Refused
from circuit_script.connectors.query import Page, Plan, Query, matches
from circuit_script.db.pool import Pool, tenant_reading
from circuit_script.errors import (
    ConfigError,
    DatabaseUnavailable,
    RequestRefused,
    SecretMissing,
    SecretsUnavailable,
    VendorUnavailable,
)

LOCAL = "local"
WRITES = frozenset({"insert", "update", "upsert", "delete"})
UUID_LONG = 36
T = TypeVar("T")

# What became of the writes that made these records; one that is on its way has its record in the mirror.
REFERENCES = """
SELECT e.id::text, CASE WHEN e.status = 'delivered' THEN e.vendor_id END,
       CASE WHEN e.status IN ('pending', 'in_doubt') THEN r.data || jsonb_build_object('id', r.id) END
FROM circuit.effects e
LEFT JOIN circuit.records r ON r.tenant = e.tenant AND r.object = e.target AND r.id = e.id::text AND NOT r.deleted
WHERE e.id = ANY(%s::uuid[]) AND e.tenant = %s AND e.target = %s AND e.was IS NOT NULL
"""


@runtime_checkable
class Vendor(Connector, CRM, LooksUp, Protocol):
    """A CRM outside: its ``operations`` are insert, update, upsert and delete, of ``objects``."""

    objects: frozenset[str]


@dataclass(frozen=True, slots=True)
class Homes:
    """Where objects live: ``objects`` says it of some, ``tenants`` of the others for some tenants, ``home`` for all the
    rest. A vendor keeps the objects that it knows."""

    vendors: Mapping[str, Vendor]
    home: str = LOCAL
    objects: Mapping[str, str] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)

    def of(self, tenant: str, object_: str) -> str:
        """The connector that keeps this object of this tenant; LOCAL for the built-in CRM."""
        if (said := self.objects.get(object_)) is not None:
            return said
        home = self.tenants.get(tenant, self.home)
        vendor = self.vendors.get(home)
        return home if vendor is not None and object_ in vendor.objects else LOCAL

    def vendor(self, tenant: str, object_: str) -> Vendor | None:
        """Who keeps it; None where it lives here."""
        return self.vendors.get(self.of(tenant, object_))


def named_homes(settings: Settings) -> set[str]:
    """The connectors that circuit.toml says keep records."""
    said = {settings.crm.home, *settings.crm.objects.values()}
    said |= {each.crm for each in settings.tenants.values() if each.crm is not None}
    return said - {LOCAL}


def homes_of(settings: Settings, connectors: Mapping[str, Connector]) -> Homes | None:
    """What circuit.toml says; None where all objects live here. Raises ConfigError for a home that is no CRM, or does
    not know the object."""
    vendors: dict[str, Vendor] = {}
    for name in sorted(named_homes(settings)):
        found = connectors.get(name)
        if not isinstance(found, Vendor) or not found.operations.keys() >= WRITES:
            known = ", ".join(sorted(each for each, one in connectors.items() if isinstance(one, Vendor))) or "none"
            raise ConfigError(f"crm: {name!r} keeps no records.", cure=f"CRMs that are set up: local, {known}.")
        vendors[name] = found
    for object_, name in settings.crm.objects.items():
        if name != LOCAL and object_ not in vendors[name].objects:
            known = ", ".join(sorted(vendors[name].objects))
            raise ConfigError(f"crm.objects: {name} knows no {object_}.", cure=f"It knows {known}.")
    if not vendors:
        return None
    tenants = {name: each.crm for name, each in settings.tenants.items() if each.crm is not None}
    return Homes(vendors, settings.crm.home, dict(settings.crm.objects), tenants)


class HomedCRM:
    """Reads of every object, where it lives: for one ``tenant``, or, without one, for whoever asks. ``reads``, if it is
    given, gets each row that was read outside."""

    def __init__(
        self,
        homes: Homes,
        local: CRM,
        pool: Pool,
        tenant: str = "",
        reads: dict[tuple[str, str], Fields] | None = None,
    ) -> None:
        self._homes = homes
        self._local = local
        self._pool = pool
        self._tenant = tenant
        self._reads = reads

    def of(self, tenant: str, reads: dict[tuple[str, str], Fields] | None = None) -> HomedCRM:
        """The same for one tenant, whose plans it can tell; ``reads`` gets each row that was read outside, by object
        and id."""
        return HomedCRM(self._homes, self._local, self._pool, tenant, reads)

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        vendor = self._homes.vendor(tenant, query.object)
        if vendor is None:
            return await self._local.page(tenant, query, after, size)
        page = await _asked(vendor.name, vendor.page(tenant, query, after, size))
        for row in page.rows if self._reads is not None else ():
            if matches(row, query.where):  # what does not is nobody's, and may be very much
                self._note(query.object, row)
        return page

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        vendor = self._homes.vendor(tenant, object_)
        if vendor is None:
            return await self._local.get(tenant, object_, ids)
        known = await self._references(tenant, object_, ids)
        real = [known[each][0] if each in known else each for each in ids]
        wanted = list(dict.fromkeys(each for each in real if each is not None))
        rows: dict[str, Fields | None] = {}
        if wanted:
            rows = dict(zip(wanted, await _asked(vendor.name, vendor.get(tenant, object_, wanted)), strict=True))
        found: list[Fields | None] = []
        for each, id_ in zip(ids, real, strict=True):
            row = known[each][1] if id_ is None else rows[id_]
            if row is not None and id_ is not None:
                row = {**row, "id": each} if each != id_ else row  # who asks by a reference is answered by it
                self._note(object_, row)
            found.append(row)
        return found

    def explain(self, query: Query) -> Plan:
        vendor = self._homes.vendor(self._tenant, query.object)
        return self._local.explain(query) if vendor is None else vendor.explain(query)

    def _note(self, object_: str, row: Fields) -> None:
        if self._reads is not None:
            self._reads[object_, str(row["id"])] = row

    async def _references(
        self, tenant: str, object_: str, ids: Sequence[str]
    ) -> dict[str, tuple[str | None, Fields | None]]:
        """Of ids that are references: the real one, or the record as it is on its way."""
        ours = [each for each in ids if len(each) == UUID_LONG and _is_ours(each)]
        if not ours:
            return {}
        try:
            async with self._pool.connection() as connection, tenant_reading(connection, tenant):
                wanted = [[UUID(each) for each in ours], tenant, object_]
                rows: list[Any] = await (await connection.execute(REFERENCES, wanted)).fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
            raise DatabaseUnavailable(str(error)) from error
        return {reference: (made, fields) for reference, made, fields in rows}


async def _asked(name: str, asking: Awaitable[T]) -> T:
    """What a vendor answers. Raises VendorUnavailable where it does not, RequestRefused for what it never will, and
    NotConnected."""
    try:
        return await asking
    except Failed as failed:
        if isinstance(failed.delivery, Refused):
            raise RequestRefused(f"{name}: {failed.delivery.reason}") from None
        raise VendorUnavailable(f"{name}: {failed.delivery.reason}") from None
    except SecretMissing as error:
        raise RequestRefused(f"{name}: {error}") from None
    except SecretsUnavailable as error:
        raise VendorUnavailable(f"{name}: {error}") from None


def _is_ours(text: str) -> bool:
    try:
        return UUID(text).version == 7
    except ValueError:
        return False
