"""What a handler succeeded with in a test, to try it with more of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit_script.testing.factories import Factory, Fields
from circuit_script.wiring.callouts import Prepared

NOTHING = Prepared()


@dataclass(frozen=True, slots=True)
class Stored:
    """Records that the CRM had before."""

    object: str
    records: Sequence[Mapping[str, Any]]
    tenant: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The records of a run (``old`` their before-images, where the test gave some), what was stored before it, and
    what was mocked."""

    records: Sequence[Mapping[str, Any]]
    tenant: str
    old: Sequence[Mapping[str, Any]] | None = None
    stored: Sequence[Stored] = ()
    prepared: Prepared = NOTHING
    handler: str = ""
    object: str = ""
    event: str = ""

    def many(self, count: int, factory: Factory) -> Many:
        """So many records like these, each with an id of its own; what these do not say the factory makes up."""
        incoming, old, before = [], [], []
        for place in range(count):
            like = self.records[place % len(self.records)] if self.records else {}
            made = factory.record(self.object)
            own = {"id": made["id"]}
            known = next((each for each in self._stored_as(like)), None)
            if self.event == "afterInsert":
                incoming.append({**made, **like, **own})
                continue
            before.append({**made, **(known or {}), **own})
            changed = like if self.records else factory.record(self.object)
            incoming.append({**changed, **own})
            if self.old is not None:
                old.append({**self.old[place % len(self.old)], **own})
        stored = [*self.stored, Stored(self.object, before, self.tenant)] if before else self.stored
        return Many(incoming, old or None, stored)

    def _stored_as(self, record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What was stored of this record last."""
        return [
            row
            for each in reversed(self.stored)
            for row in each.records
            if each.object == self.object and each.tenant == self.tenant and row.get("id") == record.get("id")
        ]


@dataclass(frozen=True, slots=True)
class Many:
    """The records of a large run, with their before-images if those are given, and what must be stored for it."""

    records: Sequence[Fields]
    old: Sequence[Fields] | None
    stored: Sequence[Stored]
