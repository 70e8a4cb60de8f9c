"""What connectors of messages share: keys out of the secrets, senders of tenants, and whose a message is that is found.

A vendor of messages keeps no records of ours. What it may have done is looked for among what it has sent since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from circuit_script.clock import now, time_of
from circuit_script.config import ConnectorSettings
from circuit_script.connectors.api import Access, Api, Failed
from circuit_script.connectors.connector import Effect, Later
from circuit_script.connectors.held_access import Granted, HeldAccess
from circuit_script.connectors.parts import Parts, Secrets
from circuit_script.db.pool import Pool
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable
from circuit_script.schemas.messages import USUAL

APART = timedelta(seconds=60)  # by which a vendor's clock may be behind ours
LONGEST = timedelta(days=2)  # by which an effect may be older than what it did, as another one's is looked for
READ_AGAIN = 300.0  # seconds for which a key is used as it was read
MOST = 10_000

# Effects that have told their vendor's id. Ids rise with time, so this reads a range of the primary key.
TAKEN = """
SELECT e.vendor_id FROM circuit.effects e
WHERE e.id > %s::uuid AND e.tenant = %s AND e.connector = %s AND e.vendor_id = ANY(%s::text[]) AND e.id <> %s::uuid
"""


Reads = Callable[[str], Awaitable[str]]  # the secret of a name, of one tenant


def keys(parts: Parts, connector: str, grant: Callable[[Reads], Awaitable[Access]]) -> HeldAccess:
    """The `Credentials` of a vendor that is opened by keys: ``grant`` gets what reads the secret of a name."""

    async def granted(tenant: str) -> Granted:
        async def read(name: str) -> str:
            return await _secret(parts.secrets, tenant, f"{connector}.{name}")

        return Granted(await grant(read), READ_AGAIN)

    return HeldAccess(granted)


async def _secret(secrets: Secrets | None, tenant: str, name: str) -> str:
    """Raises SecretMissing; SecretsUnavailable for what cannot stand in a header."""
    if secrets is None:
        raise SecretMissing(f"{name} of {tenant}")
    value = (await secrets.get(tenant, name)).strip()
    if not value or not value.isascii() or not value.isprintable():
        raise SecretsUnavailable(f"{name} is no key.")
    return value


async def opened(api: Api, tenant: str) -> Access:
    """The tenant's access, for what is about to be written. Raises Failed: it waits for what is missing."""
    try:
        return await api.access(tenant)
    except (NotConnected, SecretMissing, SecretsUnavailable) as error:
        raise Failed(Later(str(error), down=True)) from None


def mapping_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty for anything else."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def listed(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list; none of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def instant(value: object) -> datetime | None:
    """A moment as ISO 8601, in UTC unless it says; None for anything else."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def sender_of(settings: ConnectorSettings, effect: Effect) -> str:
    """Who a message is from: whom its target names, else the tenant's own, else everybody's; empty for nobody."""
    if effect.target != USUAL:
        return effect.target
    return settings.senders.get(effect.tenant, settings.sender)


def since(effect: Effect) -> datetime:
    """From when on its vendor can have done it."""
    made = time_of(effect.id) if effect.id.version == 7 else now() - LONGEST
    return made - APART


class Claims:
    """Which effect each message of a vendor is of, as far as it is known: here, and in the database, where there is
    one. So two effects that say the same to the same person are not taken for one another."""

    def __init__(self, connector: str, database: Pool | None) -> None:
        self._connector = connector
        self._database = database
        self._known: OrderedDict[tuple[str, str], UUID] = OrderedDict()

    def claim(self, effect: Effect, vendor_id: str) -> bool:
        """Whether it is this effect's: of two who look at once, one was first."""
        owner = self._known.setdefault((effect.tenant, vendor_id), effect.id)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return owner == effect.id

    async def free(self, effect: Effect, vendor_ids: Collection[str]) -> list[str]:
        """Those that may be this effect's, in their order. Raises as the database does."""
        left = self._left(effect, dict.fromkeys(vendor_ids))
        if left and self._database is not None:
            first = UUID(int=int((since(effect) - LONGEST).timestamp() * 1000) << 80)
            values = [first, effect.tenant, self._connector, left, effect.id]
            async with self._database.connection() as connection:
                taken = {row[0] for row in await (await connection.execute(TAKEN, values)).fetchall()}
            left = self._left(effect, [each for each in left if each not in taken])  # or meanwhile
        return left

    def _left(self, effect: Effect, vendor_ids: Iterable[str]) -> list[str]:
        return [each for each in vendor_ids if self._known.get((effect.tenant, each), effect.id) == effect.id]
