"""Settings → the secrets of a process."""

from __future__ import annotations

from collections.abc import Callable

from circuit_script.config import Settings
from circuit_script.secrets.hosts import HostsTable
from circuit_script.secrets.kept import KeptSecrets
from circuit_script.secrets.keys import Keys
from circuit_script.secrets.places import Environment, Kept, Place
from circuit_script.secrets.table import Connections, Table


def open_secrets(settings: Settings, database: Connections, keys: Keys | None = None) -> KeptSecrets:
    """Nothing is asked for yet; a store that cannot be used as it is set up says so when it is."""
    place = _Opened(lambda: store_of(settings, database, keys or Keys(settings)))
    return KeptSecrets(place, Environment(settings.tenant_names), HostsTable(database))


def store_of(settings: Settings, database: Connections, keys: Keys) -> Place:
    """The configured store. Raises SecretsUnavailable as above."""
    match settings.secrets.store:
        case "aws":
            from circuit_script.secrets.aws import Aws  # its library is optional, and large

            return Aws(settings.secrets.aws)
        case "vault":
            from circuit_script.secrets.vault import Vault

            return Vault(settings.secrets.vault)
        case "table":
            return Table(database, keys)


class _Opened:
    """A place that is opened when it is first asked: most processes never ask."""

    def __init__(self, open_place: Callable[[], Place]) -> None:
        self._open = open_place
        self._place: Place | None = None

    @property
    def name(self) -> str:
        return self._opened().name

    async def read(self, tenant: str, name: str) -> str | None:
        return await self._opened().read(tenant, name)

    async def write(self, tenant: str, name: str, value: str, by: str) -> None:
        await self._opened().write(tenant, name, value, by)

    async def delete(self, tenant: str, name: str) -> bool:
        return await self._opened().delete(tenant, name)

    async def all(self) -> list[Kept]:
        return await self._opened().all()

    async def aclose(self) -> None:
        if self._place is not None:
            await self._place.aclose()

    def _opened(self) -> Place:
        if self._place is None:
            self._place = self._open()
        return self._place
