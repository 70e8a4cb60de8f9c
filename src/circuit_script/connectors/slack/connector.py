"""Slack's Web API: https://api.slack.com/methods.

A message carries its effect's id as metadata. One of which no answer came is looked for by that among those of its
channel (or thread); the app needs the scope to read its history for that, and the channel must be given by its id.
Where it cannot be read, a person is asked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    Unknown,
)
from circuit_script.connectors.messengers import Reads, keys, listed, mapping_of, since
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.slack.faults import FAULTS, MEANINGS, code_of
from circuit_script.schemas.messages import MOST_BLOCKS, MOST_SLACK, Wrong, line, text

NAME = "slack"
URL = "https://slack.com/api"
EVENT = "circuit_effect"
PATIENCE = 10.0  # seconds for one request
PAGE = 200
MOST_PAGES = 5
LISTED = 1.0  # seconds that its history may be behind
RATE = Rate(1, 1.0, 1, "target")  # a channel takes one message a second
OFTEN = Rate(50, 60.0, 5, "operation")

_CHANNEL = re.compile(r"[CGD][A-Z0-9]{2,30}")
_STAMP = re.compile(r"[0-9]{1,12}\.[0-9]{1,8}")


class Slack:
    """Messages of all tenants, each by its own token. A target is a channel."""

    name = NAME

    def __init__(self, parts: Parts, *, wait: float = LISTED) -> None:
        url = (parts.settings.url or URL).rstrip("/")
        self._api = Api(
            parts.client,
            keys(parts, NAME, lambda read: _access(read, url)),
            name=NAME,
            faults=FAULTS,
            code_of=code_of,
            timeout=PATIENCE,
        )
        self._wait = wait
        self.operations: Mapping[str, Operation] = {
            "post": Operation(InDoubt.LOOK_UP, timeout=40.0, rate=RATE, makes_ids=True, irreversible=True),
            "update": Operation(InDoubt.REPEAT, timeout=30.0, rate=OFTEN, irreversible=True),
            "react": Operation(InDoubt.REPEAT, timeout=30.0, rate=OFTEN),
        }

    async def deliver(self, operation: str, effects: Sequence[Effect]) -> Sequence[Delivery]:
        return [await self._do(operation, each) for each in effects]

    async def look_up(self, effect: Effect) -> Delivered | Later | None:
        if effect.operation != "post":
            return Later("it may be done again")
        if _CHANNEL.fullmatch(effect.target) is None:
            return None
        try:
            found = await self._find(effect)
            if isinstance(found, Later) and self._wait:  # it may only not be listed yet
                await asyncio.sleep(self._wait)
                found = await self._find(effect)
            return found
        except Failed:
            return None

    async def _do(self, operation: str, effect: Effect) -> Delivery:
        if operation not in _METHODS:
            return Refused(f"Slack has no operation {operation!r}")
        try:
            method, body = _METHODS[operation](effect)
            said = await self._ask(effect.tenant, method, body)
        except Wrong as wrong:
            return Refused(str(wrong))
        except Failed as failed:
            if operation == "react" and failed.code == "already_reacted":
                return Delivered()
            return _explained(failed)
        if said.get("ok") is not True:
            error = said.get("error")
            if operation == "react" and error == "already_reacted":
                return Delivered()
            if isinstance(error, str) and error:
                return Refused(f"Slack: {ascii(error)[:100]}")
            return Unknown("Slack's answer is no answer of Slack's")
        stamp = said.get("ts")
        return Delivered(stamp if isinstance(stamp, str) and _STAMP.fullmatch(stamp) else None)

    async def _ask(self, tenant: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/json; charset=utf-8"}
        return mapping_of(
            await self._api.send(tenant, "POST", f"/{method}", writes=True, json=dict(body), headers=headers)
        )

    async def _find(self, effect: Effect) -> Delivered | Later | None:
        """Raises Failed."""
        thread = effect.payload.get("thread")
        method = "conversations.replies" if thread else "conversations.history"
        params = {
            "channel": effect.target,
            "oldest": f"{since(effect).timestamp():.6f}",
            "include_all_metadata": "true",
            "limit": str(PAGE),
            **({"ts": str(thread)} if thread else {}),
        }
        for _ in range(MOST_PAGES):
            said = mapping_of(await self._api.send(effect.tenant, "GET", f"/{method}", params=params))
            if said.get("ok") is not True:
                return None
            for each in listed(said.get("messages")):
                if _effect_of(each) == str(effect.id):
                    return Delivered(str(each.get("ts")))
            more = said.get("response_metadata")
            cursor = more.get("next_cursor") if isinstance(more, dict) else None
            if said.get("has_more") is not True:
                return Later("no answer came, and Slack has no such message")
            if not isinstance(cursor, str) or not cursor:
                return None
            params["cursor"] = cursor
        return None


def make(parts: Parts) -> Slack:
    return Slack(parts)


async def _access(read: Reads, url: str) -> Access:
    return Access({"authorization": f"Bearer {await read('token')}"}, url)


def _post(effect: Effect) -> tuple[str, dict[str, Any]]:
    body = {
        "channel": effect.target,
        **_said(effect),
        "metadata": {"event_type": EVENT, "event_payload": {"id": str(effect.id)}},
    }
    if (thread := effect.payload.get("thread")) is not None:
        body["thread_ts"] = _stamp(thread, "thread")
        if effect.payload.get("broadcast") is True:
            body["reply_broadcast"] = True
    return "chat.postMessage", body


def _update(effect: Effect) -> tuple[str, dict[str, Any]]:
    return "chat.update", {
        "channel": effect.target,
        "ts": _stamp(effect.payload.get("message"), "message"),
        **_said(effect),
    }


def _react(effect: Effect) -> tuple[str, dict[str, Any]]:
    return "reactions.add", {
        "channel": effect.target,
        "timestamp": _stamp(effect.payload.get("message"), "message"),
        "name": line(effect.payload.get("emoji"), "emoji", 100).strip(":"),
    }


_METHODS = {"post": _post, "update": _update, "react": _react}


def _said(effect: Effect) -> dict[str, Any]:
    """Raises Wrong."""
    said: dict[str, Any] = {"text": text(effect.payload.get("text"), "text", MOST_SLACK)}
    blocks = effect.payload.get("blocks")
    if blocks is not None:
        if not isinstance(blocks, list) or not all(isinstance(each, dict) for each in blocks):
            raise Wrong("blocks are a list of mappings.")
        if len(blocks) > MOST_BLOCKS:
            raise Wrong(f"there are {len(blocks)} blocks; {MOST_BLOCKS} are the most.")
        said["blocks"] = blocks
    return said


def _stamp(value: object, what: str) -> str:
    if not isinstance(value, str) or _STAMP.fullmatch(value) is None:
        raise Wrong(f"{what}: {ascii(value)[:60]} is no message of Slack's, as 1503435956.000247.")
    return value


def _effect_of(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("event_type") != EVENT:
        return None
    payload = metadata.get("event_payload")
    return str(payload.get("id")) if isinstance(payload, dict) else None


def _explained(failed: Failed) -> Delivery:
    said = MEANINGS.get(failed.code or "")
    if said is None or not isinstance(failed.delivery, Refused):
        return failed.delivery
    return Refused(f"{said} ({failed.delivery.reason})")
