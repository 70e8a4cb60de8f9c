"""Whose delivery is it? Maps vendors' account ids to tenants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from circuit_script.errors import ConfigError

DEFAULT = "default"


def unknown_tenant_cure(tenant: str, known: Collection[str]) -> str:
    """How to find the tenant that was meant."""
    near = get_close_matches(tenant, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known)[:10])}."
    return f"{hint} Others stand in circuit.toml: [tenants.{tenant}]."


class TenantMap:
    """``tenants`` is tenant → source → accounts. Without any, everything belongs to ``default``."""

    def __init__(self, tenants: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._open = not tenants
        self._tenant: dict[tuple[str, str], str] = {}
        for tenant, sources in tenants.items():
            if not tenant or "\0" in tenant:
                raise ConfigError(f"[tenants]: {tenant!r} is no name of a tenant.", page="unknown-tenant")
            for source, accounts in sources.items():
                for account in accounts:
                    self._add(source, account, tenant)

    def _add(self, source: str, account: str, tenant: str) -> None:
        known = self._tenant.setdefault((source, account), tenant)
        if known != tenant:
            raise ConfigError(
                f"Account {account!r} of {source} belongs to both {known!r} and {tenant!r}.", page="unknown-tenant"
            )

    def tenant_of(self, source: str, account: str) -> str | None:
        """The account's tenant; None when there is a map and the account is not in it."""
        return DEFAULT if self._open else self._tenant.get((source, account))
