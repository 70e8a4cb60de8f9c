"""Resend: signed by Svix; what became of e-mails, and changes of contacts and domains."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.source import (
    EventDraft,
    Parsed,
    Record,
    Request,
    Source,
    draft,
    identifier,
    read_object,
    stable_id,
    storable,
    titled,
)
from circuit_script.events.sources.verify import Keyring, check_standard, standard_key

EVENTS = {"created": "afterInsert", "sent": "afterInsert", "received": "afterInsert", "deleted": "afterDelete"}
FIELDS = {"first_name": "firstName", "last_name": "lastName"}


class Resend(Source):
    """``email.bounced`` is an ``Email`` that was updated, its ``status`` "bounced". A secret says whose."""

    name = "resend"
    kept_headers = ("svix-id", "svix-timestamp", "svix-signature", "content-type", "user-agent")

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Resend:
        return cls(Keyring.of(settings.resend.secrets, "sources.resend.secrets", standard_key))

    def verify(self, request: Request) -> str:
        return check_standard(self._keys, request, "svix")

    def parse(self, request: Request, signer: str = "") -> Parsed:
        event, _ = _read(request.body)
        return Parsed(signer, identifier(request.headers.get("svix-id")) or None, (event,))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        event, record = _read(body)
        record = storable(record, body)
        record["id"] = event.record
        return [record]


def _read(body: bytes) -> tuple[EventDraft, Record]:
    payload = read_object(body)
    object_, _, kind = identifier(payload.get("type")).partition(".")
    data = payload.get("data")
    fields: Record = data if isinstance(data, dict) else {}
    record: Record = {FIELDS.get(name, name): value for name, value in fields.items()}
    id_ = identifier(record.get("email_id")) or identifier(record.get("id")) or stable_id(payload)
    if object_ == "email":
        record["status"] = kind
    return draft(titled(object_), EVENTS.get(kind, "afterUpdate"), id_), record
