"""Where a secret may be sent when a handler names it: hosts, as lists of `egress` have them."""

from __future__ import annotations

from collections.abc import Sequence

from circuit_script.secrets.table import Connections, asking

_READ = "SELECT hosts FROM circuit.secret_hosts WHERE tenant = %s AND name = %s"
_ALL = "SELECT tenant, name, hosts FROM circuit.secret_hosts ORDER BY tenant, name"
_WRITE = """
INSERT INTO circuit.secret_hosts AS h (tenant, name, hosts, by) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant, name) DO UPDATE SET hosts = excluded.hosts, by = excluded.by, created_at = clock_timestamp()
"""
_DELETE = "DELETE FROM circuit.secret_hosts WHERE tenant = %s AND name = %s"


class HostsTable:
    """The table `circuit.secret_hosts`. Every method raises SecretsUnavailable."""

    def __init__(self, database: Connections) -> None:
        self._database = database

    async def read(self, tenant: str, name: str) -> tuple[str, ...] | None:
        """None where nobody has said."""
        async with asking(self._database) as connection:
            row = await (await connection.execute(_READ, (tenant, name))).fetchone()
        return None if row is None else tuple(row[0])

    async def all(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """By tenant and name."""
        async with asking(self._database) as connection:
            rows = await (await connection.execute(_ALL)).fetchall()
        return {(tenant, name): tuple(hosts) for tenant, name, hosts in rows}

    async def write(self, tenant: str, name: str, hosts: Sequence[str], by: str) -> None:
        """Nothing else than these; without any, it may be sent nowhere."""
        async with asking(self._database) as connection:
            if hosts:
                await connection.execute(_WRITE, (tenant, name, list(hosts), by))
            else:
                await connection.execute(_DELETE, (tenant, name))
