"""GoHighLevel's connector on its stand-in: what its tests share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import httpx

from circuit_script.connectors.api import Access
from circuit_script.connectors.gohighlevel import GoHighLevel, connect
from circuit_script.connectors.gohighlevel.objects import CONTACT, row_of
from circuit_script.connectors.pace import Pace
from circuit_script.connectors.query import Fields
from circuit_script.testing.stand_ins.gohighlevel import GoHighLevelStandIn, running, shapes

WINDOW = 0.2  # seconds of the vendor's limit, which are ten


class OneToken:
    """The access of a private token, which nobody renews."""

    def __init__(self, vendor: GoHighLevelStandIn) -> None:
        self.vendor = vendor
        self.token = vendor.token
        self.next: str | None = None

    async def of(self, tenant: str) -> Access:
        return Access({"authorization": f"Bearer {self.token}"}, self.vendor.url, self.vendor.location)

    async def refused(self, tenant: str, access: Access) -> bool:
        if self.next is None:
            return access.headers["authorization"] != f"Bearer {self.vendor.token}" or self.token == self.vendor.token
        self.token, self.next = self.next, None
        return True


class Harness:
    """What the conformance suite knows of a connector's vendor."""

    tenant = "acme"
    object = "Contact"
    many = 1000
    bad = ({"score": "many"}, "score")
    wait = WINDOW

    def __init__(self, vendor: GoHighLevelStandIn, connector: GoHighLevel) -> None:
        self.vendor = vendor
        self.connector = connector
        vendor.world.custom_field(vendor.location, "Score", "NUMERICAL")

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        world, location = self.vendor.world, self.vendor.location
        known = {each["fieldKey"].partition(".")[2]: each["id"] for each in world.fields.values()}
        ids = []
        for row in rows:
            custom = [{"id": known[name], "value": value} for name, value in row.items() if name in known]
            plain = {name: value for name, value in row.items() if name not in known}
            ids.append(world.contact(location, {**plain, "customFields": custom})["id"])
        return ids

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        keys = {each["id"]: each["fieldKey"].partition(".")[2] for each in self.vendor.world.fields.values()}
        found = [self.vendor.world.contacts.get(each) for each in ids]
        return [None if each is None else row_of(CONTACT, shapes.contact(each), keys) for each in found]

    def fail_next(self, how: str, times: int = 1) -> None:
        self.vendor.fail_next(how, times)

    def calls(self) -> int:
        return len(self.vendor.heard)

    def field(self, kind: str) -> str | None:
        return {"text": "companyName", "number": "score", "flag": "dnd", "moment": None}[kind]


@contextlib.asynccontextmanager
async def staged(*, window: float = WINDOW, indexed: float = 0.0, reference: bool = False) -> AsyncIterator[Harness]:
    """The stand-in and a connector to it, both until the block ends; what does not fit the vendor's contract fails.

    ``reference``: its location has the custom field for references of ours.
    """
    with running(window=window) as vendor:
        if reference:
            vendor.world.custom_field(vendor.location, "Circuit reference")
        async with httpx.AsyncClient() as client:
            yield Harness(vendor, connect(client, OneToken(vendor), Pace(100, window), indexed=indexed))
        assert vendor.violations == []
