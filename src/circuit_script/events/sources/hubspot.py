"""HubSpot: HMAC over method, address, body and time; batches of changes, each of one property of one record."""

from __future__ import annotations

import re

from circuit_script.config import SourceSettings
from circuit_script.events.sources.source import (
    UNKNOWN,
    EventDraft,
    Parsed,
    Reason,
    Record,
    Request,
    Source,
    draft,
    identifier,
    ids_together,
    malformed,
    read_value,
    stable_id,
    storable,
    titled,
    unauthorized,
)
from circuit_script.events.sources.verify import (
    Keyring,
    check_clock,
    mac,
    moment,
    needed,
    public_url,
    raw,
    sha256_hex,
)

SIGNATURE, STAMP = "x-hubspot-signature-v3", "x-hubspot-request-timestamp"
OLD_SIGNATURE, OLD_VERSION = "x-hubspot-signature", "x-hubspot-signature-version"
MOST_EVENTS = 100

OBJECTS = {"deal": "Opportunity", "0-1": "Contact", "0-2": "Company", "0-3": "Opportunity", "0-5": "Ticket"}
EVENTS = {
    "creation": "afterInsert",
    "propertyChange": "afterUpdate",
    "associationChange": "afterUpdate",
    "merge": "afterUpdate",
    "deletion": "afterDelete",
    "privacyDeletion": "afterDelete",
    "restore": "afterUndelete",
}
FIELDS = {
    "firstname": "firstName",
    "lastname": "lastName",
    "company": "companyName",
    "zip": "postalCode",
    "address": "address1",
    "dealname": "name",
    "dealstage": "pipelineStageId",
    "pipeline": "pipelineId",
    "amount": "monetaryValue",
    "hubspot_owner_id": "assignedTo",
}

# HubSpot signs an address in which these stand for themselves, however they came.
_PLAIN = {f"%{ord(sign):02X}": sign for sign in ":/?@!$'()*,;"}
_ESCAPED = re.compile("|".join(_PLAIN), re.IGNORECASE)


class HubSpot(Source):
    """Webhooks of one app in all portals that installed it; an account is a portalId."""

    name = "hubspot"
    kept_headers = (SIGNATURE, STAMP, OLD_SIGNATURE, OLD_VERSION, "host", "content-type", "user-agent")

    def __init__(self, keys: Keyring, url: str = "", *, legacy: bool = False) -> None:
        self._keys = keys
        self._url = url
        self._legacy = legacy

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> HubSpot:
        vendor = settings.hubspot
        return cls(Keyring.of(vendor.secrets, "sources.hubspot.secrets"), vendor.url, legacy=vendor.legacy)

    def verify(self, request: Request) -> str:
        url = public_url(self._url, request)
        if self._legacy and SIGNATURE not in request.headers and OLD_SIGNATURE in request.headers:
            return self._verify_old(request, url)
        signature, stamp = needed(request, SIGNATURE, STAMP)
        signed_at = moment(stamp, "ms")
        plain = _ESCAPED.sub(lambda found: _PLAIN[found[0].upper()], url)
        head, tail = request.method.encode(), request.body + raw(stamp)
        several = {head + raw(each) + tail for each in (plain, url)}
        signer = self._keys.signer(
            lambda key: [mac(key, each, encoding="base64") for each in several], [raw(signature)]
        )
        check_clock(signed_at, request.received_at)
        return signer

    def _verify_old(self, request: Request, url: str) -> str:
        signature, version = needed(request, OLD_SIGNATURE, OLD_VERSION)
        match version:
            case "v1":
                signed = request.body
            case "v2":
                signed = request.method.encode() + raw(url) + request.body
            case _:
                unauthorized(Reason.BAD_SIGNATURE, "This version of signatures is not known.")
        return self._keys.signer(lambda key: [sha256_hex(key, signed)], [raw(signature)])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        changes = _changes(request.body)
        portals = {identifier(each.get("portalId")) for each in changes}
        if len(portals) > 1:
            malformed(Reason.SEVERAL_ACCOUNTS, "The events are of several portals.")
        (portal,) = portals
        if signer and portal != signer:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "The secret is of another portal.")
        ids = [identifier(each.get("eventId")) for each in changes]
        # One eventId may stand for changes of several subscriptions.
        names = [f"{id_}:{identifier(each.get('subscriptionId'))}" for id_, each in zip(ids, changes, strict=True)]
        return Parsed(portal, ids_together(names) if all(ids) else None, tuple(_event_of(each) for each in changes))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        return [storable(_record_of(each), body) for each in _changes(body)]


def _changes(body: bytes) -> list[Record]:
    value = read_value(body)
    changes = value if isinstance(value, list) else [value]
    if not changes:
        malformed(Reason.NO_EVENTS, "The body holds no event.")
    if len(changes) > MOST_EVENTS:
        malformed(Reason.TOO_MANY_EVENTS, f"The body holds more than {MOST_EVENTS} events.")
    if not all(isinstance(each, dict) for each in changes):
        malformed(Reason.NOT_AN_OBJECT, "The body holds an event that is not an object.")
    return changes


def _event_of(change: Record) -> EventDraft:
    name, _, kind = identifier(change.get("subscriptionType")).partition(".")
    type_ = identifier(change.get("objectTypeId"))
    object_ = OBJECTS.get(type_ if name == "object" and type_ else name) or titled(name)
    event = EVENTS.get(kind, UNKNOWN)
    return draft(object_, event, _id_of(change))


def _record_of(change: Record) -> Record:
    record: Record = {"id": _id_of(change)}
    name = identifier(change.get("propertyName"))
    if name and name != "id":
        record[FIELDS.get(name, name)] = change.get("propertyValue")
    return record


def _id_of(change: Record) -> str:
    """Of two records that became one it is the one that stays."""
    names = ("primaryObjectId", "objectId", "fromObjectId", "eventId")
    return next((found for name in names if (found := identifier(change.get(name)))), "") or stable_id(change)
