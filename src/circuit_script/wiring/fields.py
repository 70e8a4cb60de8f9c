"""Settings → whose fields are pulled: the CRM, its objects, the tenant's account."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from circuit_script.config import FILE, ConnectorSettings, Settings
from circuit_script.connectors.api import Failed
from circuit_script.connectors.connector import Describes
from circuit_script.connectors.homes import LOCAL, named_homes
from circuit_script.connectors.registry import Registry
from circuit_script.errors import ObjectsRefused, RequestRefused, VendorUnavailable
from circuit_script.schemas.facts import ObjectFacts

NOT_FOUND = 404
USUAL = ("Contact", "Opportunity")
REFUSED = (
    "Where the access was refused, give the token the scopes that it lacks, or connect again; else try again later."
)
_YOUR_OWN = "Its records are what your app writes: say yourself what they look like."


def crm_of(settings: Settings, connectors: Registry, named: str | None) -> tuple[str, Describes]:
    """The CRM that is asked: the one that is named, else the only home that can be. Raises ObjectsRefused."""
    known = {name: each for name, each in connectors.items() if isinstance(each, Describes)}
    listed = ", ".join(sorted(known)) or "none"
    if named == LOCAL:
        raise ObjectsRefused(f"{LOCAL} has no list of fields. {_YOUR_OWN}", cure=f"CRMs that have one: {listed}.")
    if named is not None:
        if named not in known:
            cure = f"CRMs with one that {FILE} names: {listed}. Name another in it: [connectors.{named[:40]}]."
            raise ObjectsRefused(f"There is no CRM {named[:80]!r} with a list of fields.", cure=cure)
        return named, known[named]
    homes = sorted(known.keys() & named_homes(settings)) or sorted(known)
    if len(homes) == 1:
        return homes[0], known[homes[0]]
    if homes:
        raise ObjectsRefused(f"There are several CRMs: {listed}.", cure="Say which: circuit-script objects pull CRM.")
    raise ObjectsRefused(
        f"All records live here, and {LOCAL} has no list of fields. {_YOUR_OWN}",
        cure=f'To pull them from a CRM, name it in {FILE}: [crm] home = "gohighlevel".',
    )


def tenant_of(settings: Settings, named: str | None) -> str:
    """The tenant whose account is asked: the only one unless it is named. Raises ObjectsRefused."""
    known = ", ".join(settings.tenant_names)
    if named is None and len(settings.tenant_names) > 1:
        raise ObjectsRefused("Each tenant's account has fields of its own.", cure=f"Say whose: --tenant, of {known}.")
    if named is not None and named not in settings.tenant_names:
        raise ObjectsRefused(f"There is no tenant {named!r}.", cure=f"Known: {known}.")
    return named or settings.tenant_names[0]


def objects_of(settings: Settings, crm: str, named: Sequence[str]) -> list[str]:
    """The objects that are asked for: those that are named, else the usual ones and what circuit.toml says this CRM
    has. Raises ObjectsRefused for what is no name."""
    said = [name for name, home in settings.crm.objects.items() if home == crm]
    said += settings.connectors.get(crm, ConnectorSettings()).objects
    found = sorted(set(named) or {*USUAL, *said})
    for each in found:
        if not each.isidentifier() or not each.isascii():
            raise ObjectsRefused(
                f"{each[:80]!r} is no name of an object of yours.",
                cure=f'Give it one in {FILE}: [connectors.{crm}.objects] Invoice = "…".',
            )
    return found


async def pulled(
    name: str, crm: Describes, tenant: str, objects: Collection[str], told: Callable[[str, int], None]
) -> list[ObjectFacts]:
    """What the CRM says of each object now; ``told`` hears which is asked for, after how many. Raises ObjectsRefused,
    VendorUnavailable, NotConnected, SecretMissing."""
    found: list[ObjectFacts] = []
    for each in objects:
        told(each, len(found))
        try:
            found.append(ObjectFacts(each, tuple(await crm.described(tenant, each))))
        except Failed as failed:
            if failed.missing or failed.status == NOT_FOUND:
                raise ObjectsRefused(f"{name} has no {each}.", cure="Name those that it has: --object.") from None
            raise VendorUnavailable(
                f"{name} was asked for the fields of {each}: {failed.delivery.reason}.", cure=REFUSED
            ) from None
        except VendorUnavailable:
            raise
        except RequestRefused as error:
            raise ObjectsRefused(error.detail, cure=error.cure) from None
    return found
