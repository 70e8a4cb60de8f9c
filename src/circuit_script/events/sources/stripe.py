"""Stripe: HMAC over time and body, several while secrets are rolled."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.source import (
    EventDraft,
    Parsed,
    Reason,
    Record,
    Request,
    Source,
    draft,
    identifier,
    read_object,
    stable_id,
    storable,
    titled,
    unauthorized,
)
from circuit_script.events.sources.verify import (
    MOST_SIGNATURES,
    Keyring,
    check_clock,
    mac,
    moment,
    needed,
    raw,
)

SIGNATURE = "stripe-signature"
EVENTS = {"created": "afterInsert", "deleted": "afterDelete"}


class Stripe(Source):
    """Events of an account, or of those connected to it; an account is the secret's, else the connected one."""

    name = "stripe"
    kept_headers = (SIGNATURE, "content-type", "user-agent")

    def __init__(self, keys: Keyring) -> None:
        """Keys are the whole secrets, ``whsec_`` included."""
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Stripe:
        return cls(Keyring.of(settings.stripe.secrets, "sources.stripe.secrets"))

    def verify(self, request: Request) -> str:
        (listed,) = needed(request, SIGNATURE)
        parts = [part.strip().partition("=") for part in listed.split(",", MOST_SIGNATURES + 5)]
        stamps = [value for name, _, value in parts if name == "t"]
        given = [raw(value) for name, _, value in parts if name == "v1"]
        if len(stamps) != 1:
            unauthorized(Reason.BAD_TIMESTAMP, "The signature has not one timestamp.")
        if not given:
            unauthorized(Reason.MISSING_SIGNATURE, "The header Stripe-Signature has no v1.")
        signed_at = moment(stamps[0])
        signed = raw(f"{stamps[0]}.") + request.body
        signer = self._keys.signer(lambda key: [mac(key, signed)], given)
        check_clock(signed_at, request.received_at)
        return signer

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = read_object(request.body)
        event, _ = _read(payload)
        account = signer or identifier(payload.get("account"))
        return Parsed(account, identifier(payload.get("id")) or None, (event,))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        event, record = _read(read_object(body))
        return [{**storable(record, body), "id": event.record}]


def _read(payload: Record) -> tuple[EventDraft, Record]:
    """The event, and the object that it is about."""
    type_ = identifier(payload.get("type"))
    data = payload.get("data")
    inner = data.get("object") if isinstance(data, dict) else None
    record = inner if isinstance(inner, dict) else {}
    kind, _, verb = type_.rpartition(".")
    object_ = titled(identifier(record.get("object")) or kind)
    return draft(object_, EVENTS.get(verb, "afterUpdate"), identifier(record.get("id")) or stable_id(payload)), record
