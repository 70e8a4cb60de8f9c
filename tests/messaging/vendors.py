"""Stand-ins for those who carry messages: real servers on loopback that remember what they sent, keep to their rules,
and refuse what they should."""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections import deque
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from tests.crm.vendor_server import Answer, Heard, VendorServer, Wrong
from tests.messaging.contracts import Contract

Doc = dict[str, Any]


class Messenger(VendorServer):
    """``wrongs`` are the vendor's own errors that the next requests get; what does not fit its contract is kept there.
    ``only`` is the method that mishaps and errors befall, all if it is empty."""

    vendor = ""

    def __init__(self) -> None:
        super().__init__()
        self.contract = Contract(self.vendor)
        self.wrongs: deque[Answer] = deque()
        self.only = ""
        self.numbers = itertools.count(1)

    def may_fail(self, heard: Heard) -> bool:
        return self.only in ("", heard.method)

    def hear(self, heard: Heard) -> Answer | None:
        answer = super().hear(heard)
        if answer is not None:
            self.contract.check(heard, answer)
        return answer

    def answer(self, heard: Heard) -> Answer:
        if self.wrongs and self.may_fail(heard):
            return self.wrongs.popleft()
        return self.take(heard)

    def take(self, heard: Heard) -> Answer:
        raise NotImplementedError

    def heard(self, method: str) -> list[Heard]:
        return [each for each in self.requests if each.method == method]


def hexadecimal(number: int) -> str:
    return f"{number:032x}"


class TwilioVendor(Messenger):
    """``accounts`` are tokens by SID, ``senders`` numbers and services by account; who is ``stopped`` wants nothing."""

    vendor = "twilio"
    known = frozenset({"To", "From", "MessagingServiceSid", "Body", "StatusCallback"})

    def __init__(self) -> None:
        super().__init__()
        self.accounts = {"AC" + "a" * 32: "token-of-acme-1", "AC" + "b" * 32: "token-of-birch-1"}
        self.senders = {"AC" + "a" * 32: {"+15125550100", "MG" + "1" * 32}, "AC" + "b" * 32: {"+15125550200"}}
        self.stopped: set[tuple[str, str]] = set()
        self.landlines: set[str] = set()
        self.messages: list[Doc] = []
        self.lag = 0  # so many of the latest messages are not listed yet

    def failing(self, how: str) -> Answer | None:
        return {"429": error(429, 20429, "Too many requests"), "500": error(500, 20500, "Internal error"),
                "401": error(401, 20003, "Authenticate")}[how]  # fmt: skip

    def take(self, heard: Heard) -> Answer:
        found = re.fullmatch(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/Messages\.json", heard.path)
        if found is None:
            return error(404, 20404, "The requested resource was not found")
        account = found[1]
        basic = "Basic " + base64.b64encode(f"{account}:{self.accounts.get(account, '')}".encode()).decode()
        if account not in self.accounts or heard.headers.get("authorization") != basic:
            return error(401, 20003, "Authenticate")
        return self._send(account, heard.form()) if heard.method == "POST" else self._list(account, heard)

    def _send(self, account: str, form: dict[str, str]) -> Answer:
        if form.keys() - self.known:
            return error(400, 20001, f"Unknown parameters {form.keys() - self.known}")
        to, body = form.get("To", ""), form.get("Body", "")
        sender = form.get("From") or form.get("MessagingServiceSid")
        if not to:
            return error(400, 21604, "A 'To' phone number is required.")
        if not body:
            return error(400, 21602, "Message body is required.")
        if not sender or ("From" in form and "MessagingServiceSid" in form):
            return error(400, 21603, "A 'From' phone number is required.")
        if sender not in self.senders[account]:
            return error(400, 21606, f"The 'From' phone number {sender} is not a valid, SMS-capable number")
        if re.fullmatch(r"\+[1-9][0-9]{6,14}", to) is None or to.startswith("+1999"):
            return error(400, 21211, f"The 'To' number {to} is not a valid phone number.")
        if to in self.landlines:
            return error(400, 21614, f"'To' number {to} is not a valid mobile number")
        if len(body) > 1600:
            return error(400, 21617, "The concatenated message body exceeds the 1600 character limit")
        if (sender, to) in self.stopped:
            return error(400, 21610, "Attempt to send to unsubscribed recipient")
        message = self.put(account, to, body, form.get("From"), form.get("MessagingServiceSid"))
        message["callback"] = form.get("StatusCallback")
        return Answer(201, shown(message))

    def put(self, account: str, to: str, body: str, sender: str | None, service: str | None = None,
            direction: str = "outbound-api", made: datetime | None = None) -> Doc:  # fmt: skip
        message = {"sid": "SM" + hexadecimal(next(self.numbers)), "account_sid": account, "to": to, "from": sender,
                   "messaging_service_sid": service, "body": body, "direction": direction,
                   "date_created": format_datetime(made or datetime.now(UTC))}  # fmt: skip
        self.messages.append(message)
        return message

    def _list(self, account: str, heard: Heard) -> Answer:
        size, page = int(heard.one("PageSize", "50")), int(heard.one("Page", "0"))
        there = self.messages[: len(self.messages) - self.lag]
        self.lag = 0
        found = [each for each in reversed(there) if each["account_sid"] == account and each["to"] == heard.one("To")]
        rows = found[page * size : (page + 1) * size]
        more = len(found) > (page + 1) * size
        query = urlencode({"To": heard.one("To"), "PageSize": size, "Page": page + 1, "PageToken": "PA1"})
        return Answer(200, {
            "messages": [shown(each) for each in rows], "page": page, "page_size": size, "start": page * size,
            "end": page * size + len(rows), "uri": heard.path, "first_page_uri": heard.path,
            "previous_page_uri": None, "next_page_uri": f"{heard.path}?{query}" if more else None,
        })  # fmt: skip


def shown(message: Doc) -> Doc:
    return {
        **{name: value for name, value in message.items() if name != "callback"}, "status": "queued",
        "num_segments": "1", "num_media": "0", "date_sent": None, "date_updated": message["date_created"],
        "error_code": None, "error_message": None, "price": None, "price_unit": "USD", "api_version": "2010-04-01",
        "uri": f"/2010-04-01/Accounts/{message['account_sid']}/Messages/{message['sid']}.json", "subresource_uris": {},
    }  # fmt: skip


def error(status: int, code: int, message: str) -> Answer:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return Answer(status, {"code": code, "message": message, "more_info": more, "status": status})


class ResendVendor(Messenger):
    """``keys`` are teams by API key, ``domains`` those that each may send from. Idempotency keys are kept for ever.
    ``tells_tags``: what was sent is shown with its tags."""

    vendor = "resend"
    fields = frozenset({"from", "to", "subject", "cc", "bcc", "reply_to", "text", "html", "headers", "tags",
                        "attachments"})  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.keys = {"re_key_of_acme": "acme", "re_key_of_birch": "birch"}
        self.domains = {"acme": {"acme.example"}, "birch": {"birch.example"}}
        self.mails: list[Doc] = []
        self.seen: dict[tuple[str, str], tuple[Any, Answer]] = {}
        self.tells_tags = False
        self.permissive = True
        self.bounded: deque[float] | None = None  # when it was asked, to keep to two requests a second

    def failing(self, how: str) -> Answer | None:
        return {"429": said(429, "rate_limit_exceeded", "Too many requests", **{"retry-after": "1"}),
                "500": said(500, "application_error", "An unexpected error occurred"),
                "401": said(401, "missing_api_key", "Missing API Key")}[how]  # fmt: skip

    def take(self, heard: Heard) -> Answer:
        team = self.keys.get(heard.headers.get("authorization", "").removeprefix("Bearer "))
        if team is None:
            return said(403, "invalid_api_key", "API key is invalid")
        if (over := self._over()) is not None:
            return over
        match heard.method, heard.path.split("/"):
            case "POST", [_, "emails"]:
                return self._once(team, heard, lambda: Answer(200, {"id": self._mail(team, heard.json())["id"]}))
            case "POST", [_, "emails", "batch"]:
                return self._once(team, heard, lambda: self._batch(team, heard))
            case "GET", [_, "emails"]:
                return self._list(team, heard)
            case "GET", [_, "emails", identifier]:
                mail = next((each for each in self.mails if each["team"] == team and each["id"] == identifier), None)
                return (
                    said(404, "not_found", "Email not found") if mail is None else Answer(200, self._shown(mail, True))
                )
        return said(405, "method_not_allowed", "This endpoint does not support this method")

    def _over(self) -> Answer | None:
        if self.bounded is None:
            return None
        now = time.monotonic()
        while self.bounded and self.bounded[0] <= now - 1:
            self.bounded.popleft()
        if len(self.bounded) >= 2:
            headers = {"ratelimit-limit": "2", "ratelimit-remaining": "0", "ratelimit-reset": "1"}
            return said(
                429, "rate_limit_exceeded", "Too many requests. You can only make 2 requests per second.", **headers
            )
        self.bounded.append(now)
        return None

    def _once(self, team: str, heard: Heard, do: Any) -> Answer:
        key = heard.headers.get("idempotency-key", "")
        if not 0 < len(key) <= 256:
            return said(400, "invalid_idempotency_key", "The key must be between 1-256 chars")
        if (team, key) in self.seen:
            body, answer = self.seen[team, key]
            return (
                answer if body == heard.json() else said(409, "invalid_idempotent_request", "Same idempotency key used")
            )
        answer = do()
        self.seen[team, key] = (heard.json(), answer)
        return answer

    def _batch(self, team: str, heard: Heard) -> Answer:
        mails = heard.json()
        if not isinstance(mails, list) or not 1 <= len(mails) <= 100:
            raise Wrong(said(422, "validation_error", "The batch must have 1 to 100 emails"))
        if self.permissive and heard.headers.get("x-batch-validation") == "permissive":
            made, wrong = [], []
            for index, each in enumerate(mails):
                try:
                    made.append({"id": self._mail(team, each, batch=True)["id"]})
                except Wrong as error:
                    wrong.append({"index": index, "message": error.answer.body["message"]})
            return Answer(200, {"data": made, "errors": wrong} if wrong else {"data": made})
        for each in mails:
            self._check(team, each, True)
        return Answer(200, {"data": [{"id": self._mail(team, each, batch=True)["id"]} for each in mails]})

    def _check(self, team: str, mail: Doc, batch: bool) -> None:
        if unknown := mail.keys() - self.fields:
            raise Wrong(said(422, "validation_error", f"Unknown fields {unknown}"))
        for name in ("from", "to", "subject"):
            if not mail.get(name):
                raise Wrong(said(422, "missing_required_field", f"Missing `{name}` field."))
        sender = mail["from"].rpartition("<")[2].rstrip(">").rpartition("@")[2]
        if sender not in self.domains[team]:
            raise Wrong(said(403, "validation_error", f"The {sender} domain is not verified."))
        if not (mail.get("html") or mail.get("text")):
            raise Wrong(said(422, "missing_required_field", "Missing `html` or `text` field."))
        if any(each.endswith("@nowhere.invalid") for each in mail["to"]):
            raise Wrong(
                said(422, "validation_error", "Invalid `to` field. The email address needs to follow the format")
            )
        if batch and "attachments" in mail:
            raise Wrong(said(422, "validation_error", "Batch emails do not support attachments"))
        for each in mail.get("tags", ()):
            if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,256}", each[part]) for part in ("name", "value")):
                raise Wrong(said(422, "validation_error", "Tags should only contain ASCII letters"))
        for each in mail.get("attachments", ()):
            base64.b64decode(each["content"], validate=True)

    def _mail(self, team: str, mail: Doc, *, batch: bool = False) -> Doc:
        self._check(team, mail, batch)
        number = next(self.numbers)
        made = {**mail, "team": team, "id": f"00000000-0000-4000-8000-{number:012d}",
                "created_at": datetime.now(UTC).isoformat(sep=" ")[:-3]}  # fmt: skip
        self.mails.append(made)
        return made

    def _list(self, team: str, heard: Heard) -> Answer:
        rows = [each for each in reversed(self.mails) if each["team"] == team]
        if after := heard.one("after"):
            rows = rows[[each["id"] for each in rows].index(after) + 1 :]
        size = int(heard.one("limit", "20"))
        assert 1 <= size <= 100
        shown = [self._shown(each, False) for each in rows[:size]]
        return Answer(200, {"object": "list", "has_more": len(rows) > size, "data": shown})

    def _shown(self, mail: Doc, whole: bool) -> Doc:
        names = ["id", "to", "from", "subject", "created_at", "cc", "bcc", "reply_to"] + ["text", "html"] * whole
        found = {name: mail[name] for name in names if name in mail}
        if whole and self.tells_tags:
            found["tags"] = mail["tags"]
        return {"object": "email", "last_event": "sent", **found}


def said(status: int, name: str, message: str, **headers: str) -> Answer:
    return Answer(status, {"statusCode": status, "name": name, "message": message}, dict(headers))


class SlackVendor(Messenger):
    """``tokens`` are workspaces; ``channels`` those that the app is in, ``others`` those that it is not in."""

    vendor = "slack"

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {"xoxb-token-of-acme": "acme", "xoxb-token-of-birch": "birch"}
        self.channels = {"acme": {"C0ACME0001"}, "birch": {"C0BIRCH001"}}
        self.others: set[str] = set()
        self.archived: set[str] = set()
        self.messages: list[Doc] = []
        self.readable = True
        self.pages = 0
        self.paced: dict[str, float] | None = None  # when each channel got its latest message: one a second

    def failing(self, how: str) -> Answer | None:
        return {"429": Answer(429, {"ok": False, "error": "ratelimited"}, {"retry-after": "1"}),
                "500": Answer(500, b"upstream failed", kind="text/plain"), "401": no("invalid_auth")}[how]  # fmt: skip

    def take(self, heard: Heard) -> Answer:
        team = self.tokens.get(heard.headers.get("authorization", "").removeprefix("Bearer "))
        if team is None:
            return no("invalid_auth")
        body = {}
        if heard.method == "POST":
            is_json = heard.headers["content-type"].startswith("application/json")
            if is_json and "charset=utf-8" not in heard.headers["content-type"]:
                return no("missing_charset")
            body = heard.json() if is_json else heard.form()
        method = heard.path.rpartition("/")[2]
        if method in ("chat.postMessage", "chat.update") and not body.get("text"):
            return no("no_text")
        if len(body.get("text", "")) > 40_000:
            return no("msg_too_long")
        channel = body.get("channel") or heard.one("channel")
        if channel in self.others:
            return no("not_in_channel")
        if channel not in self.channels[team]:
            return no("channel_not_found")
        if channel in self.archived:
            return no("is_archived")
        match method:
            case "chat.postMessage":
                return self._post(team, channel, body)
            case "chat.update":
                message = self._message(channel, body["ts"])
                message["text"] = body["text"]
                shown = {"text": body["text"]}
                return yes(channel=channel, ts=body["ts"], text=body["text"], message=shown)
            case "reactions.add":
                message = self._message(channel, body["timestamp"])
                if not re.fullmatch(r"[a-z0-9_+-]+", body["name"]):
                    return no("invalid_name")
                if body["name"] in message["reactions"]:
                    return no("already_reacted")
                message["reactions"].append(body["name"])
                return yes()
            case "conversations.history" | "conversations.replies":
                return self._history(channel, {**body, **{name: each[0] for name, each in heard.query.items()}}, method)
        return no("unknown_method")

    def _post(self, team: str, channel: str, body: Doc) -> Answer:
        if self.paced is not None:
            now = time.monotonic()
            if now - self.paced.get(channel, 0) < 1:
                return Answer(429, {"ok": False, "error": "ratelimited"}, {"retry-after": "1"})
            self.paced[channel] = now
        stamp = f"{time.time():.0f}.{next(self.numbers):06d}"
        self.messages.append({"team": team, "channel": channel, "ts": stamp, "text": body["text"], "reactions": [],
                              "thread_ts": body.get("thread_ts"), "metadata": body.get("metadata"),
                              "blocks": body.get("blocks")})  # fmt: skip
        message = {
            "type": "message",
            "subtype": "bot_message",
            "text": body["text"],
            "ts": stamp,
            "bot_id": "B19LU7CSY",
        }
        return yes(channel=channel, ts=stamp, message=message)

    def _message(self, channel: str, stamp: str) -> Doc:
        for each in self.messages:
            if (each["channel"], each["ts"]) == (channel, stamp):
                return each
        raise Wrong(no("message_not_found"))

    def _history(self, channel: str, asked: Doc, method: str) -> Answer:
        if not self.readable:
            return no("missing_scope")
        oldest, thread = float(asked.get("oldest", "0")), asked.get("ts")
        rows = [each for each in reversed(self.messages) if each["channel"] == channel and float(each["ts"]) >= oldest
                and (method == "conversations.history") == (each["thread_ts"] is None)
                and each["thread_ts"] in (None, thread)]  # fmt: skip
        start, size = int(asked.get("cursor", "0")), self.pages or int(asked.get("limit", "100"))
        whole = asked.get("include_all_metadata") in ("true", "1")
        shown = [{"type": "message", "text": each["text"], "ts": each["ts"],
                  **({"metadata": each["metadata"]} if whole and each["metadata"] else {})}
                 for each in rows[start : start + size]]  # fmt: skip
        more = len(rows) > start + size
        return yes(messages=shown, has_more=more, pin_count=0, channel_actions_ts=None, channel_actions_count=0,
                   response_metadata={"next_cursor": str(start + size) if more else ""})  # fmt: skip


def no(error: str) -> Answer:
    return Answer(200, {"ok": False, "error": error})


def yes(**fields: Any) -> Answer:
    return Answer(200, {"ok": True, **fields})


class VapiVendor(Messenger):
    """``keys`` are organizations, ``phones`` and ``assistants`` what each has. ``at_once`` calls may go on."""

    vendor = "vapi"

    def __init__(self) -> None:
        super().__init__()
        self.keys = {"vapi-key-of-acme": "acme", "vapi-key-of-birch": "birch"}
        self.phones = {"acme": {"phone-acme"}, "birch": {"phone-birch"}}
        self.assistants = {"acme": {"assistant-1"}, "birch": {"assistant-2"}}
        self.calls: list[Doc] = []
        self.at_once = 10

    def failing(self, how: str) -> Answer | None:
        return {"429": oops(429, "Too Many Requests"), "500": oops(500, "Internal server error"),
                "401": oops(401, "Unauthorized")}[how]  # fmt: skip

    def take(self, heard: Heard) -> Answer:
        team = self.keys.get(heard.headers.get("authorization", "").removeprefix("Bearer "))
        if team is None:
            return oops(401, "Unauthorized. Invalid key.")
        if heard.path != "/call":
            return oops(404, "Not Found")
        return self._call(team, heard.json()) if heard.method == "POST" else self._list(team, heard)

    def _call(self, team: str, call: Doc) -> Answer:
        if unknown := call.keys() - {
            "name",
            "assistantId",
            "phoneNumberId",
            "customer",
            "schedulePlan",
            "assistantOverrides",
        }:
            return oops(400, f"property {sorted(unknown)[0]} should not exist")
        if len(call.get("name", "")) > 40:
            return oops(400, "name must be shorter than or equal to 40 characters")
        if call["assistantId"] not in self.assistants[team]:
            return oops(400, "Couldn't find assistant")
        if call["phoneNumberId"] not in self.phones[team]:
            return oops(400, "Couldn't find phone number")
        if re.fullmatch(r"\+[1-9][0-9]{6,14}", call["customer"]["number"]) is None:
            return oops(400, "customer.number must be a valid phone number in the E.164 format")
        going_on = [
            each for each in self.calls if each["orgId"] == team and each["status"] in ("queued", "in-progress")
        ]
        if len(going_on) >= self.at_once and "schedulePlan" not in call:
            return oops(400, "Over Concurrency Limit. Upgrade for more.")
        made = datetime.now(UTC).isoformat()
        self.calls.append({**call, "id": f"call-{next(self.numbers)}", "orgId": team, "createdAt": made,
                           "updatedAt": made, "type": "outboundPhoneCall",
                           "status": "scheduled" if "schedulePlan" in call else "queued"})  # fmt: skip
        return Answer(201, self.calls[-1])

    def _list(self, team: str, heard: Heard) -> Answer:
        since = datetime.fromisoformat(heard.one("createdAtGe"))
        before = datetime.fromisoformat(heard.one("createdAtLt", "9999-01-01T00:00:00+00:00"))
        rows = [each for each in reversed(self.calls)
                if each["orgId"] == team and since <= datetime.fromisoformat(each["createdAt"]) < before]  # fmt: skip
        return Answer(200, rows[: int(heard.one("limit", "100"))])


def oops(status: int, message: str) -> Answer:
    return Answer(status, {"statusCode": status, "message": message, "error": "Error"})
