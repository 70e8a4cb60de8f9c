"""Vapi: what a call's server URL hears; signed as the credential there says."""

from __future__ import annotations

from circuit_script.config import SourceSettings
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
    stable_id,
    storable,
    titled,
    unauthorized,
)
from circuit_script.events.sources.verify import Keyring, Template, raw

SECRET, BEARER = "x-vapi-secret", "authorization"
# What is told of a call, of which some wait for an answer that nobody here gives.
OF_A_CALL = frozenset({"status-update", "end-of-call-report", "hang"})
FIRST = frozenset({"scheduled", "queued", "ringing"})


class Vapi(Source):
    """Server messages of calls; an account is the organization, or the one of its secret."""

    name = "vapi"
    taken = Reply(b"{}", "application/json")

    def __init__(self, keys: Keyring, template: Template | None = None) -> None:
        """Without a ``template`` the secret itself is sent along."""
        self._keys = keys
        self._template = template
        own = () if template is None else template.headers
        self.kept_headers = ("content-type", "user-agent", *own)
        self.secret_headers = (SECRET, BEARER) if template is None else ()

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Vapi:
        vendor = settings.vapi
        keys = Keyring.of(vendor.secrets, "sources.vapi.secrets")
        return cls(keys, Template(vendor, keys, "sources.vapi") if vendor.auth == "hmac" else None)

    def verify(self, request: Request) -> str:
        if self._template is not None:
            return self._template.check(request)
        if not self._keys:
            unauthorized(Reason.NO_SECRET, "No secret is configured for this source.")
        given = request.headers.get(SECRET, "")
        if not given:
            scheme, _, token = request.headers.get(BEARER, "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
        if not given:
            unauthorized(Reason.MISSING_SIGNATURE, "Neither Authorization: Bearer nor X-Vapi-Secret is there.")
        return self._keys.signer(lambda key: [key], [raw(given)])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        message = _message(request.body)
        call = message.get("call")
        organization = identifier(call.get("orgId")) if isinstance(call, dict) else ""
        # It resends only if told to, and gives no id: what has a moment of its own is told once.
        once = body_id(request.body) if message.get("timestamp") else None
        return Parsed(signer or organization, once, (_event_of(message),))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        message = _message(body)
        event = _event_of(message)
        inner = message.get(event.object.lower()) if event.object in ("Call", "Chat", "Session") else None
        fields = dict(message)
        if isinstance(inner, dict):
            del fields[event.object.lower()]
            fields = {**inner, **fields}
        record = storable(fields, body)
        record["id"] = event.record
        return [record]


def _message(body: bytes) -> Record:
    message = read_object(body).get("message")
    return message if isinstance(message, dict) else {}


def _event_of(message: Record) -> EventDraft:
    type_ = identifier(message.get("type"))
    of = "call" if type_ in OF_A_CALL else type_.partition(".")[0] if type_.endswith(".created") else ""
    inner = message.get(of or "call")
    id_ = identifier(inner.get("id")) if isinstance(inner, dict) else ""
    if not of:
        own = stable_id(message)
        event = "afterInsert" if type_ == "transcript" else UNKNOWN
        return draft(titled(type_), event, own, id_)
    first = type_ == "status-update" and identifier(message.get("status")) in FIRST
    event = "afterInsert" if first or of != "call" else "afterUpdate"
    return draft(titled(of), event, id_ or stable_id(message))
