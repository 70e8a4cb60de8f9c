"""The secrets of one process: of the environment, else of the store; a tenant's own before everybody's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from circuit_script.errors import SecretMissing
from circuit_script.secrets.hosts import HostsTable
from circuit_script.secrets.places import EVERYBODY, Environment, Place, check_name, check_tenant, variable_of
from circuit_script.secrets.remembered import Remembered
from circuit_script.telemetry.redact import KNOWN


class Secrets(Protocol):
    """Values by name. ``tenant`` "" is everybody's."""

    async def get(self, tenant: str, name: str) -> str:
        """The tenant's own, else everybody's. Raises SecretMissing, SecretsUnavailable."""
        ...

    async def put(self, tenant: str, name: str, value: str) -> None:
        """Keep a value. Raises SecretMissing for what is no name, SecretsUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Which:
    """Whose secret, and which; it is shown like that."""

    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.tenant}" if self.tenant else self.name


class KeptSecrets:
    """`Secrets` that remembers what it has read: FRESH seconds, and up to AWAY while the store does not answer.

    What is given out is known from then on to everything that redacts.
    """

    def __init__(
        self,
        store: Place,
        environment: Environment,
        hosts: HostsTable,
        *,
        learn: Callable[[str], None] = KNOWN.learn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._environment = environment
        self._learn = learn
        self._values = Remembered[Which, str](self._read, clock)
        self._hosts = Remembered[Which, tuple[str, ...]](lambda which: hosts.read(which.tenant, which.name), clock)

    async def get(self, tenant: str, name: str) -> str:
        """The tenant's own, else everybody's. Raises SecretMissing, SecretsUnavailable.

        A store that is away is no reason to take everybody's: that may be another account's.
        """
        check_name(name)
        for whose in dict.fromkeys((check_tenant(tenant), EVERYBODY)):
            value = self._environment.find(whose, name)
            if value is None:
                value = await self._values.get(Which(whose, name))
            if value is not None:
                self._learn(value)
                return value
        of = f" --tenant {tenant}" if tenant else ""
        raise SecretMissing(
            f"There is no {Which(tenant, name)}.",
            cure=f"Put it in: circuit-script secrets set {name}{of}, or set {variable_of(tenant, name)}.",
        )

    async def put(self, tenant: str, name: str, value: str, by: str = "circuit-script") -> None:
        await self._store.write(check_tenant(tenant), check_name(name), value, by)
        self.forget(tenant, name)

    async def hosts(self, tenant: str, name: str) -> tuple[str, ...]:
        """Where handlers may send it; none where nobody has said. Raises SecretsUnavailable."""
        for whose in dict.fromkeys((tenant, EVERYBODY)):
            if (found := await self._hosts.get(Which(whose, name))) is not None:
                return found
        return ()

    def forget(self, tenant: str | None = None, name: str | None = None) -> None:
        """Read again what was changed elsewhere: this tenant's, of this name; None means all."""

        def meant(which: Which) -> bool:
            return tenant in (None, which.tenant) and name in (None, which.name)

        self._values.forget(meant)
        self._hosts.forget(meant)

    async def aclose(self) -> None:
        """Close what the store holds open."""
        await self._store.aclose()

    async def _read(self, which: Which) -> str | None:
        return await self._store.read(which.tenant, which.name)
