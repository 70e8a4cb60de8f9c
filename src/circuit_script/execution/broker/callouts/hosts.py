"""Hosts as lists name them: "api.example.com", or "*.example.org" for everything under it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import idna

_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.%]*:[0-9a-f:.%a-z]*")
HIGHEST_PORT = 65535
LONGEST_HOST = 253  # characters, as DNS has them


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of a list of hosts; with ``below`` it means all names under it, not itself."""

    name: str
    below: bool = False

    @classmethod
    def of(cls, text: str) -> Host:
        """Raises ValueError for what names no host."""
        name = canonical(text)
        if not _NAME.fullmatch(name):
            raise ValueError(f"{text!r} is no host")
        return cls(name.removeprefix("*."), name.startswith("*."))

    def matches(self, host: str) -> bool:
        """Whether the entry means this host."""
        name = canonical(host)
        return name.endswith(f".{self.name}") if self.below else name == self.name


def canonical(host: str) -> str:
    """A host as names are compared: lower case, in ASCII as httpx has it (IDNA 2008), without the dot at its end."""
    name = host.strip("[]").rstrip(".").lower()
    if name.isascii():
        return name
    below = "*." if name.startswith("*.") else ""
    try:
        return below + idna.encode(name.removeprefix("*.")).decode()
    except idna.IDNAError:
        return name


def matches_any(entries: Iterable[str], hosts: Iterable[str]) -> bool:
    """Whether a list such as ``egress`` means one of these hosts."""
    wanted = tuple(hosts)
    return any(Host.of(entry).matches(host) for entry in entries for host in wanted)


def host_and_port(text: str) -> tuple[str, int | None]:
    """ "host", "host:port", "[v6]:port" or a network, taken apart. Raises ValueError."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest else ""
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text!r} is neither a host nor a network")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        return text, None
    if not port:
        return host, None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} has no such port")
    return host, int(port)
