"""What the platform itself has to say, as events of the tenant whom it concerns. Nobody can post it from outside."""

from __future__ import annotations

import msgspec

from circuit_script.events.sources.source import Record


class Circuit:
    """Deliveries that the platform makes. Their body has the shape of Standard Webhooks."""

    name = "circuit"

    @staticmethod
    def records(body: bytes) -> list[Record]:
        """The record of the one event that a body holds."""
        record: Record = msgspec.json.decode(body)["data"]
        return [record]
