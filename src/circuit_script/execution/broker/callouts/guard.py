"""Where a callout may go. A name is resolved once, and what is connected to is what was checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from circuit_script.errors import CalloutRefused
from circuit_script.execution.broker.callouts.addresses import Address, Private, not_public, parsed
from circuit_script.execution.broker.callouts.hosts import canonical, matches_any
from circuit_script.execution.broker.callouts.resolver import Resolver

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one app: the hosts of ``[callouts] egress`` (None: all), and the private addresses that are allowed
    all the same. Names are looked up in the name of a ``tenant``, by ``resolve`` in the place of ``resolver``."""

    egress: tuple[str, ...] | None = None
    private: Private = field(default_factory=Private)
    resolve: Resolve | None = None
    resolver: Resolver = field(default_factory=Resolver, compare=False)
    tenant: str = ""

    def of(self, tenant: str) -> Guard:
        """The same rules for a tenant's callouts."""
        return self if tenant == self.tenant else replace(self, tenant=tenant)

    def check_host(self, host: str, egress: tuple[str, ...] | None) -> None:
        """Hold a host against the lists of app and handler. Raises CalloutRefused."""
        self._check_names(host, (host,), egress)

    async def check_connection(
        self, address: Address, port: int, names: Sequence[str], egress: tuple[str, ...] | None
    ) -> None:
        """Hold a connection that a library makes by itself against every rule; ``names`` are what it has looked up.

        An address counts as a name's only when the name has it now: else one that is allowed would lead to any other.
        Raises CalloutRefused.
        """
        own = str(address)
        lists = [hosts for hosts in (self.egress, egress) if hosts is not None]
        private = not_public(address) is not None
        found: list[str] = []
        for name in names:
            listed = any(matches_any(hosts, (name,)) for hosts in lists)
            if (listed or (private and self.private.names(name))) and await self.has(name, port, address):
                found.append(name)
        self._check_names(own, (own, *found), egress)
        self.check_address(address, port, found)

    def check_address(self, address: Address, port: int, names: Iterable[str]) -> None:
        """Raises CalloutRefused for a private address, unless it is allowed."""
        kind = not_public(address)
        if kind is None:
            return
        named = tuple(names)
        if self.private.allows(address, port, named):
            return
        shown = next((f"{name} is at {address}" for name in named if name != str(address)), str(address))
        place = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        raise CalloutRefused(
            f"{shown}, which is not public ({kind}).",
            cure=f'If it is meant, write it in circuit.toml under [callouts]: private = ["{place}"].',
        )

    async def checked(self, host: str, port: int) -> list[str]:
        """Resolve the host once: those of its addresses that may be connected to.

        Of mixed answers only the public ones are used. Raises CalloutRefused when none is left, OSError when there is
        none.
        """
        allowed: list[str] = []
        refused: CalloutRefused | None = None
        for each in await self._resolved(host, port):
            try:
                self.check_address(parsed(each), port, (host,))
            except CalloutRefused as error:
                refused = error
            else:
                allowed.append(each)
        if allowed:
            return allowed
        raise refused or OSError(f"{host} has no address")

    async def check_all(self, host: str, port: int) -> None:
        """For who resolves the name again: every address must be allowed. Raises CalloutRefused, OSError."""
        for each in await self._resolved(host, port):
            self.check_address(parsed(each), port, (host,))

    def _check_names(self, shown: str, names: Sequence[str], egress: tuple[str, ...] | None) -> None:
        if egress is not None and not matches_any(egress, names):
            raise CalloutRefused(
                f"{shown} is not in the egress list of the handler.",
                cure=f'If it is meant, add "{shown}" to its egress=[…].',
            )
        if self.egress is not None and not matches_any(self.egress, names):
            raise CalloutRefused(
                f"{shown} is not in the egress list of the app.",
                cure=f'If it is meant, add "{shown}" to egress under [callouts] in circuit.toml.',
            )

    async def has(self, name: str, port: int, address: Address) -> bool:
        """Whether the name leads to this address now."""
        try:
            return any(parsed(each) == address for each in await self._resolved(name, port))
        except (OSError, ValueError):
            return False

    async def _resolved(self, host: str, port: int) -> Sequence[str]:
        name = host if host.isascii() else canonical(host)  # as lists read it, which the system may do otherwise
        if not name.isascii():
            raise OSError(f"{host} is no name of a host")
        if self.resolve is not None:
            return await self.resolve(name, port)
        return await self.resolver.look_up(name, port, self.tenant)
