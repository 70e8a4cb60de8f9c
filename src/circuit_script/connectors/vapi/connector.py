"""Vapi's calls: https://docs.vapi.ai/api-reference/calls/create.

A call is named by its effect's id, by which one of which no answer came is looked for. An account has so many calls
at a time; who is over that is kept waiting here, before Vapi says so.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx

from circuit_script.clock import now
from circuit_script.connectors.api import Access, Api, Failed
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    InDoubt,
    Later,
    Operation,
    Rate,
    Refused,
    SlowDown,
)
from circuit_script.connectors.messengers import Reads, instant, keys, listed, mapping_of, sender_of, since
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.vapi.faults import FAULTS, SOON, code_of, wait_of
from circuit_script.schemas.messages import Wrong, line, number

NAME = "vapi"
URL = "https://api.vapi.ai"
AT_ONCE = 10  # calls of an account
LONGEST_CALL = timedelta(hours=1)  # that is looked for among those that go on
PATIENCE = 15.0  # seconds for one request
PAGE = 1000
LISTED = 2.0  # seconds that its lists may be behind
GOING_ON = frozenset({"queued", "ringing", "in-progress", "forwarding"})
RATE = Rate(60, 60.0, 10, "connector")
MOST = 10_000

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Vapi:
    """Calls of all tenants, each by its own key. A target is the id of a number of ours, or the tenant's usual one."""

    name = NAME

    def __init__(
        self,
        parts: Parts,
        *,
        at_once: int = AT_ONCE,
        wait: float = LISTED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = parts.settings
        url = (parts.settings.url or URL).rstrip("/")
        self._api = Api(
            parts.client,
            keys(parts, NAME, lambda read: _access(read, url)),
            name=NAME,
            faults=FAULTS,
            code_of=code_of,
            wait_of=wait_of,
            timeout=PATIENCE,
        )
        self._at_once = at_once
        self._wait = wait
        self._clock = clock
        self._begun: OrderedDict[str, deque[float]] = OrderedDict()  # tenant → when its latest calls began
        self._locks: dict[str, asyncio.Lock] = {}
        self.operations: Mapping[str, Operation] = {
            "call": Operation(InDoubt.LOOK_UP, timeout=60.0, rate=RATE, irreversible=True)
        }

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return [await self._call(each) for each in effects]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        try:
            found = await self._find(effect)
            if isinstance(found, Later) and self._wait:  # it may only not be listed yet
                await asyncio.sleep(self._wait)
                found = await self._find(effect)
            return found
        except Failed:
            return None

    async def _call(self, effect: Effect) -> Delivery:
        try:
            call = call_of(effect, sender_of(self._settings, effect))
            if "schedulePlan" not in call:
                async with self._locks.setdefault(effect.tenant, asyncio.Lock()):
                    if not await self._has_room(effect.tenant):
                        return SlowDown(f"{self._at_once} calls go on, which is as many as there may be at once", SOON)
            answer = await self._api.send(effect.tenant, "POST", "/call", writes=True, json=call)
        except Wrong as wrong:
            return Refused(str(wrong))
        except Failed as failed:
            return failed.delivery
        identifier = mapping_of(answer).get("id")
        return Delivered(identifier if isinstance(identifier, str) and _ID.fullmatch(identifier) else None)

    async def _has_room(self, tenant: str) -> bool:
        """Whether one more call may begin; asks only where so many have begun here lately. Raises Failed."""
        begun = self._begun.setdefault(tenant, deque(maxlen=self._at_once))
        self._begun.move_to_end(tenant)
        if len(self._begun) > MOST:
            self._begun.popitem(last=False)
        if len(begun) == self._at_once and self._clock() - begun[0] < LONGEST_CALL.total_seconds():
            params = {"limit": str(PAGE), "createdAtGe": (now() - LONGEST_CALL).isoformat()}
            answer = await self._api.send(tenant, "GET", "/call", params=params)
            if sum(each.get("status") in GOING_ON for each in listed(_json(answer))) >= self._at_once:
                return False
        begun.append(self._clock())
        return True

    async def _find(self, effect: Effect) -> Delivered | Later | None:
        """Raises Failed."""
        earliest = since(effect)
        params = {"limit": str(PAGE), "createdAtGe": earliest.isoformat()}
        for _ in range(5):
            answer = await self._api.send(effect.tenant, "GET", "/call", params=params)
            said = _json(answer)
            if not isinstance(said, list):
                return None
            calls = listed(said)
            for each in calls:
                if each.get("name") == str(effect.id) and isinstance(each.get("id"), str):
                    return Delivered(each["id"])
            if len(calls) < PAGE:
                return Later("no answer came, and Vapi has no such call")
            oldest = min((made for each in calls if (made := instant(each.get("createdAt")))), default=None)
            if oldest is None:
                return None
            params["createdAtLt"] = oldest.isoformat()
        return None


def make(parts: Parts) -> Vapi:
    return Vapi(parts)


async def _access(read: Reads, url: str) -> Access:
    return Access({"authorization": f"Bearer {await read('key')}"}, url)


def call_of(effect: Effect, phone: str) -> dict[str, Any]:
    """What Vapi is sent. Raises Wrong."""
    said = effect.payload
    if not phone:
        raise Wrong("there is no number that it is from: say [connectors.vapi] sender in circuit.toml.")
    call: dict[str, Any] = {
        "name": str(effect.id),
        "assistantId": _identifier(said.get("assistant"), "assistant"),
        "phoneNumberId": _identifier(phone, "sender"),
        "customer": {"number": number(said.get("to"))},
    }
    if said.get("name") is not None:
        call["customer"]["name"] = line(said["name"], "name", 40)
    if (variables := said.get("variables")) is not None:
        if not isinstance(variables, Mapping):
            raise Wrong("variables are a mapping.")
        call["assistantOverrides"] = {"variableValues": dict(variables)}
    earliest, latest = said.get("earliest"), said.get("latest")
    if earliest is not None or latest is not None:
        first, last = instant(earliest), instant(latest) if latest is not None else None
        if first is None or (latest is not None and (last is None or last <= first)):
            raise Wrong("a call has an earliest moment, and a latest one, if any, after it, both in ISO 8601.")
        plan = {"earliestAt": first.isoformat()}
        call["schedulePlan"] = plan if last is None else plan | {"latestAt": last.isoformat()}
    return call


def _identifier(value: object, what: str) -> str:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise Wrong(f"{what}: {ascii(value)[:60]} is no id of Vapi's.")
    return value


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None
