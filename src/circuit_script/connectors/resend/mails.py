"""An effect as the JSON of an e-mail. What cannot be one is refused here, before anybody is asked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from circuit_script.connectors.connector import Effect
from circuit_script.schemas.messages import (
    MOST_ATTACHED,
    MOST_ATTACHMENTS,
    MOST_MAIL,
    MOST_RECIPIENTS,
    MOST_SUBJECT,
    Wrong,
    address,
    addresses,
    headers,
    line,
    sendable,
    tags,
)

TAG = "effect"  # the tag by which an e-mail tells whose it is


def mail_of(effect: Effect, sender: str) -> dict[str, Any]:
    """What Resend is sent. Raises Wrong."""
    said = effect.payload
    if not sender:
        raise Wrong("there is nobody whom it is from: say [connectors.resend] sender in circuit.toml.")
    mail: dict[str, Any] = {"from": address(sender, "from"), "to": addresses(said.get("to"), "to")}
    if not mail["to"]:
        raise Wrong("to is empty.")
    mail["subject"] = line(said.get("subject"), "subject", MOST_SUBJECT)
    for name in ("cc", "bcc", "reply_to"):
        if found := addresses(said.get(name), name):
            mail[name] = found
    if sum(len(mail.get(name, ())) for name in ("to", "cc", "bcc")) > MOST_RECIPIENTS:
        raise Wrong(f"to, cc and bcc have more than {MOST_RECIPIENTS} addresses.")
    bodies = {name: said[name] for name in ("text", "html") if said.get(name) is not None}
    if not bodies:
        raise Wrong("there is neither text nor html.")
    for name, body in bodies.items():
        if not isinstance(body, str) or not body.strip() or not sendable(body):
            raise Wrong(f"{name} is no text that can be sent.")
    if sum(len(each.encode()) for each in bodies.values()) > MOST_MAIL:
        raise Wrong(f"text and html together are longer than {MOST_MAIL:,} bytes.")
    mail |= bodies
    if found_headers := headers(said.get("headers")):
        mail["headers"] = found_headers
    own = tags(said.get("tags"))
    if TAG in own:
        raise Wrong(f"tags: {TAG!r} is taken.")
    mail["tags"] = [{"name": name, "value": value} for name, value in {TAG: str(effect.id), **own}.items()]
    if attached := _attachments(said.get("attachments")):
        mail["attachments"] = attached
    return mail


def _attachments(value: object) -> list[dict[str, str]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise Wrong("attachments are a list of mappings.")
    if len(value) > MOST_ATTACHMENTS:
        raise Wrong(f"there are {len(value)} attachments; {MOST_ATTACHMENTS} are the most.")
    size = 0
    found = []
    for each in value:
        name = line(each.get("filename"), "attachments: filename", 255)
        content = each.get("content")
        try:
            size += len(base64.b64decode(content if isinstance(content, str) else "!", validate=True))
        except (binascii.Error, ValueError):
            raise Wrong(f"attachments: {name} is not in base64.") from None
        made = {"filename": name, "content": str(content)}
        for key in ("content_type", "content_id"):
            if each.get(key) is not None:
                made[key] = line(each[key], f"attachments: {key}", 255)
        found.append(made)
    if size > MOST_ATTACHED:
        raise Wrong(f"attachments have {size:,} bytes; {MOST_ATTACHED:,} are the most.")
    return found
