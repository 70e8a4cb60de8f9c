"""Twilio: HMAC over its own address and the form; messages, their states, calls, and who wants no more."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from circuit_script.config import SourceSettings
from circuit_script.events.sources.forms import read_form, storable_form
from circuit_script.events.sources.source import (
    UNKNOWN,
    EventDraft,
    Parsed,
    Reason,
    Record,
    Reply,
    Request,
    Source,
    body_id,
    draft,
    identifier,
    read_object,
    storable,
    unauthorized,
)
from circuit_script.events.sources.verify import Keyring, mac, needed, public_url, raw

SIGNATURE = "x-twilio-signature"
HOW = "x-twilio-webhooks-signature-settings"
ALGORITHMS: dict[str, Literal["sha1", "sha256"]] = {"": "sha1", "HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
# Bytes of a body that names no account, up to which it is held against every account's token: each costs a hash of it.
MOST_UNNAMED = 64 * 1024
PORTS = {"https": 443, "http": 80}
# What Twilio itself takes for a wish, where an account has no words of its own.
STOPS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
STARTS = frozenset({"START", "UNSTOP"})


class Twilio(Source):
    """Webhooks of messages and calls; an account is an AccountSid."""

    name = "twilio"
    kept_headers = (SIGNATURE, HOW, "i-twilio-idempotency-token", "host", "content-type", "user-agent")
    taken = Reply(b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml")  # TwiML that does nothing

    def __init__(self, keys: Keyring, url: str = "") -> None:
        self._keys = keys
        self._url = url

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Twilio:
        return cls(Keyring.of(settings.twilio.secrets, "sources.twilio.secrets"), settings.twilio.url)

    def verify(self, request: Request) -> str:
        (signature,) = needed(request, SIGNATURE)
        algorithm = ALGORITHMS.get(_algorithm(request.headers.get(HOW, "")))
        if algorithm is None:
            unauthorized(Reason.BAD_SIGNATURE, "This way of signing is not known.")
        tail = b""
        if (digest := _digest(request.query)) is not None:
            if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), digest):
                unauthorized(Reason.BAD_SIGNATURE, "The body is not the one of bodySHA256.")
        else:
            # A field that is sent twice with one value is signed once.
            tail = "".join(name + value for name, value in sorted(set(read_form(request.body)))).encode()
        signed = [raw(url) + tail for url in _spellings(public_url(self._url, request))]
        unnamed = None if len(tail) <= MOST_UNNAMED else ""
        account = identifier(_fields_of(request.body).get("AccountSid")) or unnamed
        return self._keys.signer(
            lambda key: [mac(key, each, algorithm, "base64") for each in signed], [raw(signature)], account
        )

    def parse(self, request: Request, signer: str = "") -> Parsed:
        fields = _fields_of(request.body)
        account = identifier(fields.get("AccountSid")) or signer
        return Parsed(account, _vendor_id(fields, request.body), tuple(_events_of(fields, request.body)))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        fields = _fields_of(body)
        whole = _whole(fields, body)
        return [_opt_out(fields) if each.object == "OptOut" else whole for each in _events_of(fields, body)]


def _algorithm(said: str) -> str:
    for part in said.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm":
            return value.strip()
    return ""


def _digest(query: bytes) -> bytes | None:
    """The hash of a JSON body, which stands in the address."""
    try:
        found = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        unauthorized(Reason.BAD_SIGNATURE, "The query has too many fields.")
    digest = found.get("bodySHA256")
    return None if digest is None else raw(digest)


def _spellings(url: str) -> list[str]:
    """The address with its port and without: Twilio signs some with one that nobody wrote."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return [url]
    bare = parts.netloc.removesuffix(f":{port}") if port else parts.netloc
    with_port = f"{bare}:{port or PORTS.get(parts.scheme, 443)}"
    return list(dict.fromkeys([url, *(urlunsplit(parts._replace(netloc=each)) for each in (bare, with_port))]))


def _fields_of(body: bytes) -> Record:
    """Its fields, form or JSON. Raises IntakeRefused(400)."""
    return storable(read_object(body), body) if body.lstrip()[:1] == b"{" else storable_form(read_form(body))


def _vendor_id(fields: Record, body: bytes) -> str:
    """A message has each of its states once; a call may be asked about twice in one, so what was asked counts."""
    if message := identifier(fields.get("MessageSid")):
        return identifier(f"{message}:{_status(fields)}")
    call = identifier(fields.get("CallSid"))
    return identifier(f"{call}:{identifier(fields.get('CallStatus'))}:{body_id(body)}")


def _status(fields: Record) -> str:
    return identifier(fields.get("MessageStatus")) or identifier(fields.get("SmsStatus")) or "received"


def _events_of(fields: Record, body: bytes) -> list[EventDraft]:
    if message := identifier(fields.get("MessageSid")):
        incoming = not identifier(fields.get("MessageStatus"))
        # What one says to us is in order, whatever becomes of what we say.
        order = identifier(fields.get("From")) if incoming else identifier(fields.get("To"))
        events = [draft("Message", "afterInsert" if incoming else "afterUpdate", message, order)]
        if incoming and order and _wish(fields):
            events.append(draft("OptOut", "afterUpdate", order))
        return events
    if call := identifier(fields.get("CallSid")):
        first = identifier(fields.get("CallStatus")) in ("ringing", "queued", "initiated")
        return [draft("Call", "afterInsert" if first else "afterUpdate", call)]
    return [draft(UNKNOWN, UNKNOWN, body_id(body))]


def _whole(fields: Record, body: bytes) -> Record:
    """The fields under our names: ``From`` as ``from``, ``MessageSid`` as ``messageSid``."""
    record = {name[:1].lower() + name[1:]: value for name, value in fields.items()}
    if message := identifier(fields.get("MessageSid")):
        incoming = not identifier(fields.get("MessageStatus"))
        record |= {"status": _status(fields), "direction": "inbound" if incoming else "outbound", "messageType": "SMS"}
        if incoming and (wish := _wish(fields)):
            record["optOutType"] = wish
        return record | {"id": message}
    if call := identifier(fields.get("CallSid")):
        return record | {"id": call, "status": identifier(fields.get("CallStatus"))}
    return record | {"id": body_id(body)}


def _opt_out(fields: Record) -> Record:
    """Who (``phone``) wants no more, or wants it again, of whom (``to``)."""
    phone = identifier(fields.get("From"))
    return {
        "id": phone,
        "phone": phone,
        "to": fields.get("To"),
        "messagingServiceSid": fields.get("MessagingServiceSid"),
        "type": _wish(fields),
        "optedOut": _wish(fields) == "STOP",
    }


def _wish(fields: Record) -> str:
    """STOP, START, or nothing of the kind."""
    said = identifier(fields.get("OptOutType"))
    if said:
        return said if said in ("STOP", "START") else ""
    body = fields.get("Body")
    word = body.strip().upper() if isinstance(body, str) and len(body) <= 40 else ""
    return "STOP" if word in STOPS else "START" if word in STARTS else ""
