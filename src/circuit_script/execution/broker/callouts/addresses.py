"""Which addresses are the public internet's, and which private ones the owner allows.

The tables are IANA's special-purpose registries (RFC 6890 and its updates), and the addresses at which clouds keep
their metadata. What carries an IPv4 address within an IPv6 one is judged by both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from circuit_script.execution.broker.callouts.hosts import Host, host_and_port

Address = IPv4Address | IPv6Address

_V4 = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "this host's"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6 = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "this host's"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private (site-local)"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL = IPv6Network("2000::/3")  # all that was ever given out; what lies outside is refused
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def parsed(text: str) -> Address:
    """An address without its zone. Raises ValueError."""
    return ip_address(text.partition("%")[0])


def not_public(address: Address) -> str | None:
    """What kind of address it is ("loopback", "private", …); None for one of the public internet."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), None)
    if (kind := _of_itself(address)) is not None:
        return kind
    inner = carried(address)
    return None if inner is None else not_public(inner)


def _of_itself(address: IPv6Address) -> str | None:
    """What kind it is, whatever it carries."""
    if (kind := next((kind for network, kind in _V6 if address in network), None)) is not None:
        return kind
    return None if address in _GLOBAL or _translated(address) else "reserved"


def carried(address: Address) -> IPv4Address | None:
    """The IPv4 address within an IPv6 one: mapped, NAT64, 6to4, ISATAP."""
    if isinstance(address, IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    low = int(address) & 0xFFFF_FFFF
    if _translated(address) or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(low)
    return None


def _translated(address: IPv6Address) -> bool:
    """Whether it is another way to write an IPv4 address."""
    return address.ipv4_mapped is not None or address in _NAT64


@dataclass(frozen=True, slots=True)
class Private:
    """The private addresses that the owner allows: networks and hosts, each at one port or (None) at all."""

    networks: tuple[tuple[IPv4Network | IPv6Network, int | None], ...] = ()
    hosts: tuple[tuple[Host, int | None], ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Private:
        """Read ``[callouts] private``: "10.0.0.0/8", "127.0.0.1:9000", "[::1]:80", "crm.internal", "*.internal:443".

        Raises ValueError.
        """
        networks, hosts = [], []
        for entry in entries:
            host, port = host_and_port(entry)
            try:
                networks.append((ip_network(host, strict=False), port))
            except ValueError:
                hosts.append((Host.of(host), port))
        return cls(tuple(networks), tuple(hosts))

    def names(self, host: str) -> bool:
        """Whether the host is allowed by its name, at some port."""
        return any(each.matches(host) for each, _ in self.hosts)

    def allows(self, address: Address, port: int, names: Iterable[str]) -> bool:
        """Whether this address may be reached at this port, found by one of these names."""
        wanted: list[Address] = [address]
        if isinstance(address, IPv6Address) and _of_itself(address) is None:  # else it leads elsewhere than it says
            wanted += [inner] if (inner := carried(address)) is not None else []
        if any(
            only in (None, port) and each.version == network.version and each in network
            for network, only in self.networks
            for each in wanted
        ):
            return True
        return any(only in (None, port) and host.matches(name) for host, only in self.hosts for name in names)
