"""A vendor that says when its records were changed, its connector, and a worker with it as a process of its own:
python -m tests.reconcile_toy FOLDER URL. It says "ready" once it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from circuit_script.connectors.api import Api
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.query import All, Condition, Page, Plan, Query
from tests.crm.toy import FAULTS, Tokens, Toy, _row
from tests.crm.toy_vendor import Fields, ToyVendor

STAMP = "dateUpdated"


@dataclass
class StampedVendor(ToyVendor):
    """``make`` and ``change`` stamp; a search may be ordered by the stamp, from one on."""

    def stamp(self) -> str:
        return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def make(self, object_: str, fields: Fields) -> str:
        return super().make(object_, {STAMP: self.stamp(), **fields})

    def change(self, id_: str, **fields: Any) -> Fields:
        """Somebody changes a contact there; the record."""
        self.of("Contact")[id_] |= {STAMP: self.stamp(), **fields}
        return {**self.of("Contact")[id_], "id": id_}

    async def _write(self, object_: str, operation: str, row: Fields) -> Fields:
        if "fields" in row:
            row["fields"] = {**row["fields"], STAMP: self.stamp()}
        return await super()._write(object_, operation, row)

    def _search(self, object_: str, body: Fields) -> Fields:
        if "since" not in body:
            return super()._search(object_, body)
        place = tuple(body["after"].split("|")) if body["after"] else ("", "")
        rows = sorted((row[STAMP], id_, row) for id_, row in self.of(object_).items())
        rows = [each for each in rows if each[0] >= body["since"] and each[:2] > place]
        page, rest = rows[: body["size"]], rows[body["size"] :]
        after = f"{page[-1][0]}|{page[-1][1]}" if rest else None
        return {"rows": [{"id": id_, "fields": row} for _, id_, row in page], "after": after}


class Stamped(Toy):
    """It cannot order, nor filter by moments: it gives all that there is."""

    changed_field: Mapping[str, str] = MappingProxyType({"Contact": STAMP})


class Ordered(Stamped):
    """It filters and orders by the stamp."""

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        since = _since(query)
        if since is None:
            return await super().page(tenant, query, after, size)
        asked = {"since": since, "after": after, "size": min(size, 50)}
        body = (await self._api.send(tenant, "POST", f"/objects/{query.object}/search", json=asked)).json()
        return Page([_row(each) for each in body["rows"]], body["after"])

    def explain(self, query: Query) -> Plan:
        return super().explain(query) if _since(query) is None else Plan(self.name, ("search",), (), True)


def _since(query: Query) -> str | None:
    parts = query.where.parts if isinstance(query.where, All) else (query.where,)
    found = [each.value for each in parts if isinstance(each, Condition) and (each.field, each.op) == (STAMP, "ge")]
    return found[0] if found and [each.field for each in query.order_by] == [STAMP] else None


ORDERED = True


def make(parts: Parts) -> Stamped:
    kind = Ordered if ORDERED else Stamped
    return kind(Api(parts.client, Tokens(parts), name=Toy.name, faults=FAULTS))


if __name__ == "__main__":
    from circuit_script.config import load_settings
    from circuit_script.connectors.registry import VENDORS
    from circuit_script.wiring import Worker, run_worker

    def ready(worker: Worker) -> None:
        print("ready", flush=True)

    VENDORS["toy"] = "tests.reconcile_toy"
    asyncio.run(run_worker(load_settings(Path(sys.argv[1])), sys.argv[2], ready))
