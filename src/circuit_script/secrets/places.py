"""Where secrets lie: one interface, and the environment, which comes before every other place.

``tenant`` "" is everybody's. A name is like "gohighlevel.token".
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from circuit_script.errors import SecretMissing, SecretsUnavailable

EVERYBODY = ""
PREFIX = "CIRCUIT_SECRET_"
LONGEST_NAME = 100
MAX_VALUE = 64 * 1024  # characters; AWS takes as much

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,99}")
_SEPARATORS = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a secret, without its value. ``version`` is None where the place counts none."""

    tenant: str
    name: str
    version: str | None
    created_at: datetime | None
    by: str | None


class Place(Protocol):
    """One place of secrets. Every method raises SecretsUnavailable when the place does not answer, or refuses us."""

    @property
    def name(self) -> str: ...

    async def read(self, tenant: str, name: str) -> str | None:
        """The value; None when there is none of exactly this tenant."""
        ...

    async def write(self, tenant: str, name: str, value: str, by: str) -> None:
        """Keep a value, in the place of the one before."""
        ...

    async def delete(self, tenant: str, name: str) -> bool:
        """Whether there was one."""
        ...

    async def all(self) -> list[Kept]:
        """Every secret, by tenant and name."""
        ...

    async def aclose(self) -> None:
        """Close what it holds open."""
        ...


def check_name(name: str) -> str:
    """The name. Raises SecretMissing for what cannot be one: nothing can be kept under it."""
    if len(name) > LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise SecretMissing(
            f"{name[:LONGEST_NAME]!r} is no name of a secret.",
            cure=f"Use letters, digits, and single dots, dashes or underscores between them; {LONGEST_NAME} at most.",
        )
    return name


def check_tenant(tenant: str) -> str:
    """The tenant, whose name becomes part of addresses. Raises SecretMissing."""
    if tenant != EVERYBODY and (_TENANT.fullmatch(tenant) is None or ".." in tenant):
        raise SecretMissing(
            f"The name of the tenant {tenant[:LONGEST_NAME]!r} cannot be used where secrets lie.",
            cure="Use letters, digits, dots, dashes, underscores, @ and spaces.",
        )
    return tenant


def variable_of(tenant: str, name: str) -> str:
    """The environment variable of a secret: dots and dashes are underscores there."""
    whose = f"{_folded(tenant)}__" if tenant else ""
    return f"{PREFIX}{whose}{_folded(name)}"


def _folded(text: str) -> str:
    return _SEPARATORS.sub("_", text).upper()


class Environment:
    """Variables of the platform's own processes; children get none of them.

    ``tenants`` are all there are: where two of them would read the same variable, neither does.
    """

    name = "the environment"

    def __init__(self, tenants: Collection[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        often = Counter(map(_folded, set(tenants)))
        self._alike = frozenset(each for each in tenants if often[_folded(each)] > 1)

    def find(self, tenant: str, name: str) -> str | None:
        """The value; None where there is none, or an empty one. Raises SecretsUnavailable for one that may be two
        tenants'."""
        value = self._environment.get(variable_of(tenant, name))
        if not value:
            return None
        if tenant in self._alike:
            raise SecretsUnavailable(
                f"{variable_of(tenant, name)} may be meant for several tenants, whose names differ in signs only.",
                cure="Put it into the store: circuit-script secrets set.",
            )
        return value

    def there(self, tenants: Sequence[str]) -> list[Kept]:
        """What stands there. A variable tells its name only as it is written there: "CRM_TOKEN" is "crm.token" too."""
        of_tenants = {f"{_folded(each)}__": each for each in tenants if each not in self._alike}
        found = []
        for variable, value in self._environment.items():
            rest = variable.removeprefix(PREFIX)
            if rest == variable or not value:
                continue
            folded, sign, name = rest.rpartition("__")
            tenant = of_tenants.get(f"{folded}__") if sign else EVERYBODY
            if tenant is not None and name:
                found.append(Kept(tenant, name.lower(), None, None, variable))
        return sorted(found, key=lambda kept: (kept.tenant, kept.name))
