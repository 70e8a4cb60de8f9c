"""Messages to people: SMS, e-mail, Slack, telephone calls. Each waits until its execution, or record, has succeeded.

What cannot be sent is refused where it is asked for, so that the author's line is in the trace: an address that is
none, a text that is too long. Each counts as one of ``messages``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from circuit_script.errors import RequestRefused
from circuit_script.execution.authoring.records import Record
from circuit_script.execution.session import current_record, session
from circuit_script.schemas import messages

_CHANNEL = re.compile(r"[CGDU][A-Z0-9]{2,30}|#[^\s#@,]{1,80}")
_MESSAGE = re.compile(r"[0-9]{1,12}\.[0-9]{1,8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def send_sms(to: str, body: str, *, sender: str | None = None, record: Record | None = None) -> str:
    """Send a text message by Twilio to ``to``, as ``+15125550123``, of at most 1,600 characters.

    It is from the tenant's sender (``[connectors.twilio]``), or from ``sender``: a number, or a messaging service.
    Returns the effect's id. It belongs to ``record``, or to the record of the ``context.record`` block around it.
    Raises RequestRefused for what cannot be sent.
    """
    try:
        checked = {"to": messages.number(to), "body": messages.sms(body)}
        target = messages.USUAL if sender is None else messages.line(sender, "sender", 40)
    except messages.Wrong as wrong:
        raise _refused("send_sms", wrong) from None
    counted = messages.count(body)
    payload = {**checked, "encoding": counted.encoding, "segments": counted.segments}
    return await _send("twilio", "sms", target, payload, record)


async def send_email(
    to: str | Sequence[str],
    subject: str,
    *,
    text: str | None = None,
    html: str | None = None,
    sender: str | None = None,
    cc: str | Sequence[str] = (),
    bcc: str | Sequence[str] = (),
    reply_to: str | Sequence[str] = (),
    unsubscribe: str | None = None,
    headers: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    attachments: Iterable[Mapping[str, Any]] = (),
    bulk: bool = False,
    record: Record | None = None,
) -> str:
    """Send an e-mail by Resend, as ``text``, ``html`` or both.

    It is from the tenant's sender (``[connectors.resend]``), or from ``sender``. ``unsubscribe`` is a page
    (``https://…``) or an address where who gets it says that they want no more: mail programs show it.
    ``attachments`` are mappings of ``filename``, ``content`` (bytes) and, if need be, ``content_type``, together at
    most 10 MB. With ``bulk`` up to a hundred leave in one request, without attachments. Returns the effect's id. It
    belongs to ``record``, or to the record of the ``context.record`` block around it. Raises RequestRefused for what
    cannot be sent.
    """
    try:
        payload: dict[str, Any] = {
            "to": messages.addresses(to, "to"),
            "subject": messages.line(subject, "subject", messages.MOST_SUBJECT),
        }
        for name, value in (("cc", cc), ("bcc", bcc), ("reply_to", reply_to)):
            if found := messages.addresses(value, name):
                payload[name] = found
        people = sum(len(payload.get(name, ())) for name in ("to", "cc", "bcc"))
        if not payload["to"] or people > messages.MOST_RECIPIENTS:
            raise messages.Wrong(
                f"there are {people} people; an e-mail has 1 to {messages.MOST_RECIPIENTS}, one of them in to."
            )
        payload |= _bodies(text, html)
        if found_headers := {**messages.headers(headers), **_unsubscribe(unsubscribe)}:
            payload["headers"] = found_headers
        if found_tags := messages.tags(tags):
            payload["tags"] = found_tags
        if attached := _attached(attachments):
            payload["attachments"] = attached
            if bulk:
                raise messages.Wrong("attachments go with single e-mails only: leave bulk out.")
        target = messages.USUAL if sender is None else messages.address(sender, "sender")
    except messages.Wrong as wrong:
        raise _refused("send_email", wrong) from None
    return await _send("resend", "batch" if bulk else "send", target, payload, record)


async def send_slack(
    channel: str,
    text: str,
    *,
    blocks: Sequence[Mapping[str, Any]] | None = None,
    thread: str | None = None,
    record: Record | None = None,
) -> str:
    """Post a message into a channel of Slack, named by its id (``C…``), or into a ``thread`` of it.

    ``blocks`` are Slack's own; ``text`` is then what notifications show. Returns the effect's id, by which
    `update_slack`, `react_slack` and ``thread`` can name the message before it is there. It belongs to ``record``, or
    to the record of the ``context.record`` block around it. Raises RequestRefused for what cannot be sent.
    """
    try:
        payload = _said(text, blocks)
        if thread is not None:
            payload["thread"] = _message(thread, "thread")
        target = _channel(channel)
    except messages.Wrong as wrong:
        raise _refused("send_slack", wrong) from None
    return await _send("slack", "post", target, payload, record)


async def update_slack(
    channel: str,
    message: str,
    text: str,
    *,
    blocks: Sequence[Mapping[str, Any]] | None = None,
    record: Record | None = None,
) -> str:
    """Put another text in the place of a message's, which is named by what `send_slack` returned or by its ``ts``."""
    try:
        payload = {**_said(text, blocks), "message": _message(message, "message")}
        target = _channel(channel)
    except messages.Wrong as wrong:
        raise _refused("update_slack", wrong) from None
    return await _send("slack", "update", target, payload, record)


async def react_slack(channel: str, message: str, emoji: str, *, record: Record | None = None) -> str:
    """Add a reaction (``"white_check_mark"``) to a message, which is named as for `update_slack`."""
    try:
        payload = {"emoji": messages.line(emoji, "emoji", 100), "message": _message(message, "message")}
        target = _channel(channel)
    except messages.Wrong as wrong:
        raise _refused("react_slack", wrong) from None
    return await _send("slack", "react", target, payload, record)


async def make_call(
    to: str,
    assistant: str,
    *,
    name: str | None = None,
    variables: Mapping[str, Any] | None = None,
    earliest: datetime | None = None,
    latest: datetime | None = None,
    sender: str | None = None,
    record: Record | None = None,
) -> str:
    """Have an assistant of Vapi's, named by its id, call ``to``, as ``+15125550123``.

    ``variables`` are for the assistant's templates, ``name`` is of whom it calls. It calls at once, or not before
    ``earliest`` (and not after ``latest``), both with a time zone; from the tenant's number (``[connectors.vapi]``), or
    from the one whose id is ``sender``. Returns the effect's id. It belongs to ``record``, or to the record of the
    ``context.record`` block around it. Raises RequestRefused for what cannot be sent.
    """
    try:
        payload: dict[str, Any] = {
            "to": messages.number(to),
            "assistant": messages.line(assistant, "assistant", 64),
        }
        if name is not None:
            payload["name"] = messages.line(name, "name", 40)
        if variables is not None:
            if not isinstance(variables, Mapping):
                raise messages.Wrong("variables are a mapping.")
            payload["variables"] = dict(variables)
        payload |= {key: _moment(key, each) for key, each in (("earliest", earliest), ("latest", latest)) if each}
        if latest is not None and (earliest is None or latest <= earliest):
            raise messages.Wrong("latest needs an earliest, and comes after it.")
        target = messages.USUAL if sender is None else messages.line(sender, "sender", 64)
    except messages.Wrong as wrong:
        raise _refused("make_call", wrong) from None
    return await _send("vapi", "call", target, payload, record)


async def _send(connector: str, operation: str, to: str, payload: dict[str, Any], record: Record | None) -> str:
    place = current_record.get() if record is None else record.place
    asked = {"connector": connector, "operation": operation, "to": to, "payload": payload, "record": place}
    reply = await session().request("send", asked, dict[str, str])
    return reply["id"]


def _refused(what: str, wrong: messages.Wrong) -> RequestRefused:
    return RequestRefused(f"{what}: {wrong}")


def _bodies(text: str | None, html: str | None) -> dict[str, str]:
    found = {name: body for name, body in (("text", text), ("html", html)) if body is not None}
    if not found:
        raise messages.Wrong("there is neither text nor html.")
    for name, body in found.items():
        messages.text(body, name, messages.MOST_MAIL)
    if sum(len(each.encode()) for each in found.values()) > messages.MOST_MAIL:
        raise messages.Wrong(f"text and html together are longer than {messages.MOST_MAIL:,} bytes.")
    return found


def _unsubscribe(where: str | None) -> dict[str, str]:
    """Headers of RFC 2369 and, for a page, RFC 8058: one click is a POST to it."""
    if where is None:
        return {}
    messages.line(where, "unsubscribe", messages.MOST_SUBJECT - 2)
    parts = urlsplit(where)
    if "<" in where or ">" in where or " " in where or not where.isascii():
        raise messages.Wrong("unsubscribe is an https page or an e-mail address.")
    if parts.scheme == "https" and parts.hostname:
        return {"List-Unsubscribe": f"<{where}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    if parts.scheme == "mailto":
        messages.address(parts.path, "unsubscribe")
        return {"List-Unsubscribe": f"<{where}>"}
    return {"List-Unsubscribe": f"<mailto:{messages.address(where, 'unsubscribe')}>"}


def _attached(attachments: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    size = 0
    for each in attachments:
        name = messages.line(each.get("filename"), "attachments: filename", 255)
        content = each.get("content")
        if not isinstance(content, bytes):
            raise messages.Wrong(f"attachments: the content of {name} is bytes, not {type(content).__name__}.")
        size += len(content)
        if size > messages.MOST_ATTACHED:
            raise messages.Wrong(f"attachments have more than {messages.MOST_ATTACHED:,} bytes.")
        if len(found) == messages.MOST_ATTACHMENTS:
            raise messages.Wrong(f"there are more than {messages.MOST_ATTACHMENTS} attachments.")
        made = {"filename": name, "content": base64.b64encode(content).decode()}
        for key in ("content_type", "content_id"):
            if each.get(key) is not None:
                made[key] = messages.line(each[key], f"attachments: {key}", 255)
        found.append(made)
    return found


def _said(text: str, blocks: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    said: dict[str, Any] = {"text": messages.text(text, "text", messages.MOST_SLACK)}
    if blocks is not None:
        if not all(isinstance(each, Mapping) for each in blocks):
            raise messages.Wrong("blocks are a list of mappings.")
        if len(blocks) > messages.MOST_BLOCKS:
            raise messages.Wrong(f"there are {len(blocks)} blocks; {messages.MOST_BLOCKS} are the most.")
        said["blocks"] = [dict(each) for each in blocks]
    return said


def _channel(value: object) -> str:
    if not isinstance(value, str) or _CHANNEL.fullmatch(value) is None:
        raise messages.Wrong(f"channel: {ascii(value)[:60]} is no channel: give its id, as C0123456789.")
    return value


def _message(value: object, what: str) -> str:
    if not isinstance(value, str) or _MESSAGE.fullmatch(value) is None:
        raise messages.Wrong(f"{what}: {ascii(value)[:60]} is neither what send_slack returned nor a message's ts.")
    return value


def _moment(what: str, value: object) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise messages.Wrong(f"{what} is a datetime with a time zone.")
    return value.isoformat()
