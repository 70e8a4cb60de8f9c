"""The demo's CRM: GoHighLevel's stand-in as a process of its own, and a desk at which its people work.

What people do in the vendor's app, and what leads send in its forms, is no request of its API: it comes in at
``/desk/…``, counts against no limit, and is told to the platform by signed webhooks as all else. A part of these comes
twice, and a part in another order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from circuit_script.cli.demo import words
from circuit_script.testing.stand_ins.gohighlevel import (
    LONGEST_START,
    GoHighLevelStandIn,
    contract_of,
    shapes,
)
from circuit_script.testing.stand_ins.gohighlevel.door import Door, Receive, Scope, Send
from circuit_script.testing.stand_ins.gohighlevel.webhooks import TRIES, Webhooks
from circuit_script.testing.stand_ins.gohighlevel.world import Doc

CONNECTIONS = 8
AGAIN = 0.2  # seconds before a webhook that was answered 429 is sent again; ten minutes with the vendor


@dataclass(slots=True)
class Post(Webhooks):
    """Webhooks on several connections at once. ``counts`` are how often each status came back, 0 for none."""

    counts: Counter[int] = field(default_factory=Counter)
    flying: int = 0
    _client: httpx.AsyncClient | None = None

    async def flush(self) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=30, trust_env=False)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._deliver(self._client))

    async def _deliver(self, client: httpx.AsyncClient) -> None:
        while self.waiting:
            raw = self.waiting.pop(0)
            self.flying += 1
            try:
                self.counts[await self._answer(client, raw)] += 1
            finally:
                self.flying -= 1

    async def _answer(self, client: httpx.AsyncClient, raw: bytes) -> int:
        status = 0
        for attempt in range(TRIES + 1):
            if attempt:
                await asyncio.sleep(AGAIN)
            try:
                status = (await client.post(self.url, content=raw, headers=self.sign(raw))).status_code
            except httpx.HTTPError:
                status = 0
            if status != 429:
                break
        return status


class Desk(Door):
    """The vendor's door, and beside it the desk."""

    vendor: DemoCRM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/desk/"):
            return await super().__call__(scope, receive, send)
        body = bytearray()
        while (message := await receive()).get("more_body"):
            body += message.get("body", b"")
        body += message.get("body", b"")
        answer = self.vendor.at_desk(scope["path"].removeprefix("/desk/"), json.loads(body or b"[]"))
        raw = json.dumps(answer).encode()
        sent = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": raw})


class DemoCRM(GoHighLevelStandIn):
    """One location whose custom fields are those of the demo's form and of the lead score; at the desk they are called
    by their names. ``people`` and ``echoes`` count the webhooks that people and writes over the API have caused."""

    def __init__(self, *, seed: int, window: float, webhooks: str, twice: float, shuffled: float) -> None:
        super().__init__(window=window, contract=contract_of())
        self.webhooks = self.post = Post(url=webhooks, twice=twice, shuffled=shuffled, seed=seed)
        self.people = self.echoes = 0
        door = self.door
        self.door = Desk(door.world, door.tokens, door.limits, door.contract)
        self.door.vendor = self
        self.world.duplicates_allowed = True  # families share a phone
        for names, kind in ((words.TEXT_FIELDS, "LARGE_TEXT"), (words.NUMBER_FIELDS, "NUMERICAL")):
            for name in names:
                self.world.custom_field(self.location, name, kind)
        self._ids = {each["name"]: id_ for id_, each in self.world.fields.items()}

    def _changed(self, kind: str, doc: Doc, by_api: bool) -> None:
        self.echoes += by_api
        self.people += not by_api
        self.webhooks.add(shapes.webhook(kind, doc), self.world.now())
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._send)

    def at_desk(self, what: str, given: list[dict[str, Any]]) -> Any:
        """``contacts`` makes some and says their ids; ``edits``, ``messages`` and ``appointments`` are theirs;
        ``report`` is what became of it all."""
        world, location = self.world, self.location
        match what:
            case "contacts":
                return [world.contact(location, self._with_ids(each))["id"] for each in given]
            case "edits":
                for each in given:
                    world.edit_contact(world.contacts[each["id"]], self._with_ids(each))
            case "messages":
                for each in given:
                    world.message(world.contacts[each["contactId"]], each, inbound=True)
            case "appointments":
                calendar = next(iter(world.calendars))
                for each in given:
                    world.appointment(location, each | {"calendarId": calendar})
            case "report":
                return self._report()
        return None

    def _with_ids(self, given: dict[str, Any]) -> dict[str, Any]:
        answers = [{"id": self._ids[each["id"]], "value": each["value"]} for each in given["customFields"]]
        return given | {"customFields": answers}

    def _report(self) -> dict[str, Any]:
        heard = Counter(each.status for each in self.heard)
        return {
            "people": self.people,
            "echoes": self.echoes,
            "answers": self.post.counts,
            "waiting": len(self.post.waiting) + self.post.flying,
            "requests": heard.total(),
            "slowed_down": self.limits.refused,
            "refused": sum(count for status, count in heard.items() if status >= 400 and status != 429),
            "violations": self.violations[:20],
            "checked": 0 if self.contract is None else self.contract.checked,
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="circuit_script.cli.demo.crm", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--window", type=float, required=True, help="seconds of the rate limit's window")
    parser.add_argument("--webhooks", required=True, help="where they go")
    parser.add_argument("--twice", type=float, required=True, help="how many of them come twice, from 0 to 1")
    parser.add_argument("--shuffled", type=float, required=True, help="how many of them come in another order")
    asyncio.run(_serve(DemoCRM(**vars(parser.parse_args()))))


async def _serve(vendor: DemoCRM) -> None:
    started = threading.Event()
    serving = asyncio.create_task(vendor.serve(started=started))
    await asyncio.to_thread(started.wait, LONGEST_START)
    if started.is_set():
        told = {"url": vendor.url, "token": vendor.token, "public_key": vendor.webhooks.public_key}
        print(json.dumps(told), flush=True)
    await serving


if __name__ == "__main__":
    main()
