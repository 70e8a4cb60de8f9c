"""GoHighLevel: Ed25519 over the raw body, flat payloads, no before-image."""

from __future__ import annotations

import re
from functools import lru_cache

from circuit_script.config import SourceSettings
from circuit_script.events.sources.source import (
    RESERVED,
    UNKNOWN,
    EventDraft,
    Parsed,
    Reason,
    Record,
    Request,
    Source,
    identifier,
    order_key,
    read_object,
    stable_id,
    storable,
    unauthorized,
)
from circuit_script.events.sources.verify import PublicKeys

SIGNATURE = "x-ghl-signature"
LEGACY_SIGNATURE = "x-wh-signature"
# Published in the vendor's documentation of webhook authentication; withdrawn there on 2026-07-01.
VENDOR_LEGACY_KEY = """\
-----BEGIN PUBLIC KEY-----
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAokvo/r9tVgcfZ5DysOSC
Frm602qYV0MaAiNnX9O8KxMbiyRKWeL9JpCpVpt4XHIcBOK4u3cLSqJGOLaPuXw6
dO0t6Q/ZVdAV5Phz+ZtzPL16iCGeK9po6D6JHBpbi989mmzMryUnQJezlYJ3DVfB
csedpinheNnyYeFXolrJvcsjDtfAeRx5ByHQmTnSdFUzuAnC9/GepgLT9SM4nCpv
uxmZMxrJt5Rw+VUaQ9B8JSvbMPpez4peKaJPZHBbU3OdeCVx5klVXXZQGNHOs8gF
3kvoV5rTnXV0IknLBXlcKKAQLZcY/Q9rG6Ifi9c+5vqlvHPCUJFT5XUGG5RKgOKU
J062fRtN+rLYZUV+BjafxQauvC8wSWeYja63VSUruvmNj8xkx2zE/Juc+yjLjTXp
IocmaiFeAO6fUtNjDeFVkhf5LNb59vECyrHD2SQIrhgXpO4Q3dVNA5rw576PwTzN
h/AMfHKIjE4xQA1SZuYJmNnmVZLIZBlQAF9Ntd03rfadZ+yDiOXCCs9FkHibELhC
HULgCsnuDJHcrGNd5/Ddm5hxGQ0ASitgHeMZ0kcIOwKDOzOU53lDza6/Y09T7sYJ
PQe7z0cvj7aE4B+Ax1ZoZGPzpJlZtGXCsu9aTEGEnKzmsFqwcSsnw3JB31IGKAyk
T1hhTiaCeIY/OwwwNUY2yvcCAwEAAQ==
-----END PUBLIC KEY-----"""
ENVELOPE = frozenset({"type", "locationId", "timestamp", "webhookId"})
VERBS = {"Create": "afterInsert", "Update": "afterUpdate", "Delete": "afterDelete"}
NAMED = {
    "InboundMessage": ("Message", "afterInsert"),
    "OutboundMessage": ("Message", "afterInsert"),
    "SMS": ("Message", "afterInsert"),  # what a conversation provider is to send
    "Email": ("Message", "afterInsert"),
    "TaskComplete": ("Task", "afterUpdate"),
    "InvoicePaid": ("Invoice", "afterUpdate"),
    "InvoicePartiallyPaid": ("Invoice", "afterUpdate"),
    "InvoiceSent": ("Invoice", "afterUpdate"),
    "InvoiceVoid": ("Invoice", "afterUpdate"),
    "ConversationUnreadWebhook": ("Conversation", "afterUpdate"),
    "LCEmailStats": ("EmailStats", "afterInsert"),
    "INSTALL": ("App", "afterInsert"),
    "UNINSTALL": ("App", "afterDelete"),
    "PLAN_CHANGE": ("App", "afterUpdate"),
}

_KNOWN = "Contact|Opportunity|Appointment|Note|Task|Campaign|Conversation|Order|Invoice|User"
_NESTED = {"Appointment": "appointment", "EmailStats": "webhookPayload"}
_TYPE = re.compile(rf"(?:({_KNOWN})(?:[A-Z]\w*?)?|(\w+?))(Create|Update|Delete)")


class GoHighLevel(Source):
    """Deliveries of a marketplace app. Its body's ``timestamp`` is never held against the clock: it
    resends ten minutes apart, and ``webhookId`` is the guard against replay."""

    name = "gohighlevel"
    overload_status = 429  # it drops an event on any 5xx
    kept_headers = (SIGNATURE, LEGACY_SIGNATURE, "content-type", "user-agent")

    def __init__(self, public_key: str, legacy_key: str | None = None, test_public_key: str = "") -> None:
        """Keys are base64 of the DER, or PEM. ``legacy_key`` None refuses deliveries signed the old way."""
        self._keys = PublicKeys(public_key, legacy_key, test_public_key)

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> GoHighLevel:
        vendor = settings.gohighlevel
        legacy_key = (vendor.legacy_key or VENDOR_LEGACY_KEY) if vendor.legacy else None
        return cls(vendor.public_key, legacy_key, vendor.test_public_key)

    def verify(self, request: Request) -> str:
        headers = request.headers
        signature = headers.get(SIGNATURE)
        legacy = headers.get(LEGACY_SIGNATURE) if self._keys.knows_legacy else None
        if signature is not None:
            fits = self._keys.fits(request.body, signature)
        elif legacy is not None:
            fits = self._keys.fits_legacy(request.body, legacy)
        else:
            unauthorized(Reason.MISSING_SIGNATURE, "The header X-GHL-Signature is missing.")
        if not fits:
            unauthorized(Reason.BAD_SIGNATURE, "The signature does not fit the body.")
        return ""

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = read_object(request.body)
        object, event = kind_of(identifier(payload.get("type")))
        content, record = _content_of(payload, object)
        draft = EventDraft(object, event, record, order_key(object, record, content))
        return Parsed(_account_of(payload, object), identifier(payload.get("webhookId")) or None, (draft,))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        payload = read_object(body)
        object, _ = kind_of(identifier(payload.get("type")))
        content, record_id = _content_of(payload, object)
        record = storable(_without_envelope(content), body)
        record["id"] = record_id
        _lift_custom_fields(record)
        return [record]


@lru_cache(maxsize=1024)
def kind_of(type_: str) -> tuple[str, str]:
    """(object, event) of a vendor's type: ``OpportunityStageUpdate`` is an Opportunity that was updated."""
    if type_ in NAMED:
        return NAMED[type_]
    found = _TYPE.fullmatch(type_)
    if found is None or found[2] in RESERVED:
        return type_ or UNKNOWN, UNKNOWN
    return found[1] or found[2], VERBS[found[3]]


def _content_of(payload: Record, object: str) -> tuple[Record, str]:
    """Where the record's fields stand, envelope included, and the record's id."""
    nested = payload.get(_NESTED[object]) if object in _NESTED else None
    content = nested if isinstance(nested, dict) else payload
    if object == "App":
        return content, _installation(payload)
    for name in ("id", "messageId", "emailMessageId") if object == "Message" else ("id", "_id"):
        if found := identifier(content.get(name)):
            return content, found
    return content, stable_id(_without_envelope(content))


def _installation(payload: Record) -> str:
    """An app is installed once in a location, or in a company."""
    place = identifier(payload.get("locationId")) or identifier(payload.get("companyId"))
    return identifier(f"{identifier(payload.get('appId'))}:{place}")


def _without_envelope(content: Record) -> Record:
    return {key: value for key, value in content.items() if key not in ENVELOPE}


def _account_of(payload: Record, object: str) -> str:
    if found := identifier(payload.get("locationId")):
        return found
    own = payload.get("id" if object == "Location" else "altId")
    return identifier(own) or identifier(payload.get("companyId"))


def _lift_custom_fields(record: Record) -> None:
    """Custom fields stand under their own names too; one that is a list or a mapping only there, not twice."""
    fields = record.get("customFields")
    if not isinstance(fields, list):
        return
    kept = []
    for field in fields:
        lifted = False
        if isinstance(field, dict) and isinstance(name := field.get("id"), str) and "value" in field:
            lifted = record.setdefault(name, field["value"]) is field["value"]
        if not (lifted and isinstance(field["value"], list | dict)):
            kept.append(field)
    record["customFields"] = kept
