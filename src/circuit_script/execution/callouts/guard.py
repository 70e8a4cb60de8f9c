"""Where a callout may go. A name is resolved once, and what is connected to is what was checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from circuit_script.errors import CalloutRefused
from circuit_script.execution.callouts.addresses import Address, Private, not_public, parsed
from circuit_script.execution.callouts.hosts import matches_any

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a host, in its order. Raises OSError.

    It also reads addresses in the forms of old: 2130706433, 0x7f.1, 017700000001.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one app: the hosts of ``[callouts] egress`` (None: all), and the private addresses that are allowed
    all the same."""

    egress: tuple[str, ...] | None = None
    private: Private = field(default_factory=Private)
    resolve: Resolve = look_up

    def check_host(self, host: str, egress: tuple[str, ...] | None) -> None:
        """Hold a host against the lists of app and handler. Raises CalloutRefused."""
        self._check_names(host, (host,), egress)

    async def check_connection(
        self,
        address: Address,
        port: int,
        names: Sequence[str],
        egress: tuple[str, ...] | None,
        *,
        counted: bool = False,
    ) -> None:
        """Hold a connection that a library makes by itself against every rule; ``names`` are what it has looked up.

        An address counts as a name's only when the name has it now: else one that is allowed would lead to any other.
        ``counted`` is a connection of a request whose host was held against the lists. Raises CalloutRefused.
        """
        own = str(address)
        lists = [] if counted else [hosts for hosts in (self.egress, egress) if hosts is not None]
        private = not_public(address) is not None
        found: list[str] = []
        for name in names:
            listed = any(matches_any(hosts, (name,)) for hosts in lists)
            if (listed or (private and self.private.names(name))) and await self._has(name, port, address):
                found.append(name)
        if not counted:
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
        for each in await self.resolve(host, port):
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
        for each in await self.resolve(host, port):
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

    async def _has(self, name: str, port: int, address: Address) -> bool:
        try:
            return any(parsed(each) == address for each in await self.resolve(name, port))
        except (OSError, ValueError):
            return False
