"""Which endpoint does a request mean?

The children route once more, by the author's framework. Both must mean the same: the ways that a release offers have
one order, which is that of the children (`Way.rank`), and a child refuses a request whose route is not its handler's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from circuit_script.endpoints.protocol import Offer
from circuit_script.execution.outcome import Way

MAX_PATH = 2048  # characters, decoded


@dataclass(frozen=True, slots=True)
class Found:
    """The endpoint of a path. Without an ``offer`` the path is known, but not with that method; ``allowed`` is.

    ``method`` is what its handler is to see: a HEAD that it does not know is a GET whose body is left out.
    """

    offer: Offer | None
    allowed: tuple[str, ...]
    method: str = ""

    @property
    def allow(self) -> str:
        """The header that says what the path takes."""
        return ", ".join(dict.fromkeys((*self.allowed, "OPTIONS")))

    @property
    def wrong_method(self) -> str:
        """What is said to another method."""
        return f"It takes {', '.join(self.allowed)}."


class Routes:
    """The offers of one release: ``@endpoint`` functions before routes of a web app."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        ways = [(way, offer) for offer in offers for way in offer.spec.ways]
        ways.sort(key=lambda each: (each[1].spec.kind == "web", each[0].rank))
        self._ways = [(re.compile(way.path), way, offer) for way, offer in ways]

    def matching(self, path: str) -> list[tuple[Way, Offer]]:
        """The ways that match ``path``, which is decoded: the first that has the method is meant. None for a path of
        more than MAX_PATH characters."""
        if len(path) > MAX_PATH:
            return []
        return [(way, offer) for pattern, way, offer in self._ways if pattern.fullmatch(path)]

    def find(self, method: str, path: str) -> Found | None:
        """``path`` is decoded. None when no endpoint has it."""
        matching = self.matching(path)
        if not matching:
            return None
        for kind in ("endpoint", "web"):
            for wanted in (method, "GET") if method == "HEAD" else (method,):
                for way, offer in matching:
                    if offer.spec.kind == kind and wanted in way.methods:
                        return Found(offer, way.methods, wanted)
        allowed = {method for way, _ in matching for method in way.methods}
        if "GET" in allowed:
            allowed.add("HEAD")
        return Found(None, tuple(sorted(allowed)))
