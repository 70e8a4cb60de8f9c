"""An old service that is fast: it scores a contact from its webhook, and counts how often each delivery came."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"application/json")]

heard: Counter[str] = Counter()


def score(contact: Message) -> int:
    """As the trigger of ours has it."""
    custom = {each["id"]: each["value"] for each in contact.get("customFields") or ()}
    return 10 * int(custom.get("step", 0)) + len(contact.get("email") or "") % 10


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """``POST`` scores; ``GET`` tells how many deliveries came, and how many of them more than once."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "POST":
        contact = json.loads(body)
        heard[contact["webhookId"]] += 1
        told: dict[str, Any] = {"id": contact["webhookId"], "score": score(contact)}
    else:
        told = {"deliveries": len(heard), "twice": sum(count > 1 for count in heard.values())}
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
