"""LinkedIn: HMAC over the body, and the question whether it is us, which it asks again and again."""

from __future__ import annotations

import re

import msgspec

from circuit_script.config import SourceSettings
from circuit_script.events.sources.queries import only
from circuit_script.events.sources.source import (
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
    ids_together,
    malformed,
    read_object,
    stable_id,
    storable,
    unauthorized,
)
from circuit_script.events.sources.verify import Keyring, mac, needed, raw

SIGNATURE = "x-li-signature"
SIGNED = b"hmacsha256="
MOST_EVENTS = 100
ACTIONS = {"CREATED": "afterInsert", "DELETED": "afterDelete"}

# Whoever asks gets what he asks for signed with the key of deliveries: it must never be able to look like one.
_CODE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class LinkedIn(Source):
    """Leads and what happens on an organization's page; an account is the URN of the advertiser or the organization."""

    name = "linkedin"
    kept_headers = (SIGNATURE, "content-type", "user-agent")
    methods = ("POST", "GET")
    challenges = True
    taken = Reply(b"{}", "application/json")

    def __init__(self, keys: Keyring) -> None:
        """Keys are the app's client secrets; the first one answers challenges."""
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> LinkedIn:
        return cls(Keyring.of(settings.linkedin.secrets, "sources.linkedin.secrets"))

    def challenge(self, request: Request) -> Reply | None:
        if request.method != "GET":
            return None
        code = only(request.query, "challengeCode")
        if not self._keys:
            unauthorized(Reason.NO_SECRET, "No secret is configured for this source.")
        if _CODE.fullmatch(code) is None:
            unauthorized(Reason.WRONG_CHALLENGE, "challengeCode is not a UUID.")
        answer = {"challengeCode": code, "challengeResponse": mac(self._keys.first, code.encode()).decode()}
        return Reply(msgspec.json.encode(answer), "application/json")

    def verify(self, request: Request) -> str:
        (signature,) = needed(request, SIGNATURE)
        given = raw(signature).removeprefix(SIGNED)
        return self._keys.signer(lambda key: [mac(key, SIGNED + request.body)], [given])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = read_object(request.body)
        found = _events_of(payload)
        accounts = {_account(each) or _account(payload) for _, each in found}
        if len(accounts) > 1 and not signer:
            malformed(Reason.SEVERAL_ACCOUNTS, "The notifications are of several organizations.")
        once = ids_together([identifier(each.get("notificationId")) for _, each in found])
        events = tuple(event for event, _ in found)
        return Parsed(signer or accounts.pop(), once or body_id(request.body), events)

    @staticmethod
    def records(body: bytes) -> list[Record]:
        return [storable({**each, "id": event.record}, body) for event, each in _events_of(read_object(body))]


def _events_of(payload: Record) -> list[tuple[EventDraft, Record]]:
    listed = payload.get("notifications")
    if not isinstance(listed, list):
        lead = identifier(payload.get("leadGenFormResponse"))
        kind = ACTIONS.get(identifier(payload.get("leadAction")), "afterUpdate")
        object_ = "Lead" if lead else "LinkedInActivity"
        return [(draft(object_, kind, lead or stable_id(payload)), payload)]
    notifications = [each for each in listed if isinstance(each, dict)]
    if not notifications:
        malformed(Reason.NO_EVENTS, "The body holds no notification.")
    if len(notifications) > MOST_EVENTS:
        malformed(Reason.TOO_MANY_EVENTS, f"The body holds more than {MOST_EVENTS} notifications.")
    return [(_activity(each), each) for each in notifications]


def _activity(notification: Record) -> EventDraft:
    id_ = identifier(notification.get("notificationId")) or stable_id(notification)
    return draft("LinkedInActivity", "afterInsert", id_)


def _account(content: Record) -> str:
    owner = content.get("owner")
    if isinstance(owner, dict):
        for name in ("sponsoredAccount", "organization"):
            if found := identifier(owner.get(name)):
                return found
    return identifier(content.get("organizationalEntity"))
