"""The demo's CRM from outside: its process, its desk, and its API as anybody with a token reads it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from circuit_script.cli.demo.traffic import Act
from circuit_script.cli.demo.vendor import Payload
from circuit_script.errors import StartError

LOCATION = "ve9EPM428h8vShlRW1KT"
VERSION = "2021-07-28"  # of the vendor's API of contacts
WINDOW = 0.4  # seconds of the limit of 100 requests: the vendor's ten, with the demo's clock
TWICE = 0.025  # of webhooks come twice
SHUFFLED = 0.2  # of webhooks overtake others
PAGE = 500
AT_ONCE = 10
_START = 20.0
_END = 10.0
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Desk:
    """The running CRM. ``public_key`` is of the key with which it signs; ``token`` opens its API."""

    client: httpx.AsyncClient
    url: str
    token: str
    public_key: str

    async def create(self, contacts: Sequence[Payload]) -> list[str]:
        """New contacts, as its forms send them; their ids."""
        ids: list[str] = await self._desk("contacts", contacts)
        return ids

    async def act(self, acts: Sequence[Act]) -> None:
        for what in dict.fromkeys(each.what for each in acts):
            await self._desk(what, [each.payload for each in acts if each.what == what])

    async def report(self) -> dict[str, Any]:
        """What it has told, heard and refused so far."""
        found: dict[str, Any] = await self._desk("report", ())
        return found

    async def contacts(self) -> list[dict[str, Any]]:
        """All of them, by the vendor's search; custom fields under their keys."""
        fields = (await self._api("GET", f"/locations/{LOCATION}/customFields"))["customFields"]
        keys = {each["id"]: each["fieldKey"].removeprefix("contact.") for each in fields}
        found: list[dict[str, Any]] = []
        after: Any = None
        while True:
            body = {"locationId": LOCATION, "pageLimit": PAGE, "sort": [{"field": "dateAdded", "direction": "asc"}]}
            asked = body | {"searchAfter": after} if after else body
            page = (await self._api("POST", "/contacts/search", asked))["contacts"]
            found += [{**each, **{keys[one["id"]]: one["value"] for one in each["customFields"]}} for each in page]
            if len(page) < PAGE:
                return found
            after = page[-1]["searchAfter"]

    async def _api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.token}", "version": VERSION}
        for _ in range(_TRIES):
            answer = await self.client.request(method, f"{self.url}{path}", json=body, headers=headers)
            if answer.status_code != 429:
                break
            await asyncio.sleep(WINDOW)
        answer.raise_for_status()
        return answer.json()

    async def _desk(self, what: str, given: Sequence[Payload]) -> Any:
        answer = await self.client.post(f"{self.url}/desk/{what}", json=list(given))
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def open_desk(folder: Path, *, seed: int, webhooks: str) -> AsyncIterator[Desk]:
    """The CRM in a process of its own, on a free loopback port; it sends to ``webhooks``.

    Raises StartError with the end of its log when it does not come up.
    """
    log = folder / "crm.log"
    options = {"seed": seed, "window": WINDOW, "webhooks": webhooks, "twice": TWICE, "shuffled": SHUFFLED}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "circuit_script.cli.demo.crm"),
            *(f"--{name}={value}" for name, value in options.items()),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        try:
            told = json.loads(await asyncio.wait_for(process.stdout.readline(), _START))
        except (TimeoutError, ValueError):
            said = log.read_text(errors="replace")[-1500:].strip()
            raise StartError(f"The demo's CRM did not start. It said:\n{said}") from None
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            yield Desk(client, told["url"], told["token"], told["public_key"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END)
        except TimeoutError:
            process.kill()
            await process.wait()
