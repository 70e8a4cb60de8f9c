"""Which endpoint does a request mean?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from circuit_script.endpoints.protocol import Offer


@dataclass(frozen=True, slots=True)
class Found:
    """The endpoint of a path. Without an ``offer`` the path is known, but not with that method; ``allowed`` is.

    ``method`` is what its handler is to see: a HEAD that it does not know is a GET whose body is left out.
    """

    offer: Offer | None
    allowed: tuple[str, ...]
    method: str = ""


class Routes:
    """The offers of one release: ``@endpoint`` functions before routes of a web app, each in the author's order."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        ordered = sorted(offers, key=lambda offer: offer.spec.kind == "web")
        self._routes = [(re.compile(path), offer) for offer in ordered for path in offer.spec.paths]

    def find(self, method: str, path: str) -> Found | None:
        """``path`` is decoded. None when no endpoint has it."""
        offers = [offer for pattern, offer in self._routes if pattern.fullmatch(path)]
        if not offers:
            return None
        for wanted in (method, "GET") if method == "HEAD" else (method,):
            for offer in offers:
                if wanted in offer.spec.methods:
                    return Found(offer, offer.spec.methods, wanted)
        allowed = {method for offer in offers for method in offer.spec.methods}
        if "GET" in allowed:
            allowed.add("HEAD")
        return Found(None, tuple(sorted(allowed)))
