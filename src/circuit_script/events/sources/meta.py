"""Meta: pages, lead ads, Messenger, WhatsApp. HMAC over the body, and the question whether it is us."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator

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
    malformed,
    read_object,
    stable_id,
    storable,
    titled,
    unauthorized,
)
from circuit_script.events.sources.verify import Keyring, mac, needed, raw

SIGNATURE = "x-hub-signature-256"
MOST_EVENTS = 1000
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{1,200}")  # what is sent back must not be a page

Found = tuple[str, EventDraft, Record]


class Meta(Source):
    """Webhooks of one app; an account is what an entry is about: a page, a WhatsApp business account."""

    name = "meta"
    kept_headers = (SIGNATURE, "content-type", "user-agent")
    methods = ("POST", "GET")
    challenges = True
    taken = Reply(b"EVENT_RECEIVED")

    def __init__(self, keys: Keyring, verify_token: str = "") -> None:
        self._keys = keys
        self._verify_token = verify_token

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Meta:
        return cls(Keyring.of(settings.meta.secrets, "sources.meta.secrets"), settings.meta.verify_token)

    def challenge(self, request: Request) -> Reply | None:
        if request.method != "GET":
            return None
        mode, word, said = (only(request.query, f"hub.{name}") for name in ("mode", "verify_token", "challenge"))
        if not self._verify_token:
            unauthorized(Reason.NO_SECRET, "No verify_token is configured for this source.")
        same = hmac.compare_digest(self._verify_token.encode(), word.encode("utf-8", "replace"))
        if not same or mode != "subscribe" or _CHALLENGE.fullmatch(said) is None:
            unauthorized(Reason.WRONG_CHALLENGE, "hub.verify_token is wrong, or there is nothing to answer.")
        return Reply(said.encode())

    def verify(self, request: Request) -> str:
        (signature,) = needed(request, SIGNATURE)
        return self._keys.signer(lambda key: [b"sha256=" + mac(key, request.body)], [raw(signature)])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        found = list(_changes(request.body))
        accounts = {account for account, _, _ in found}
        if len(accounts) > 1 and not signer:
            malformed(Reason.SEVERAL_ACCOUNTS, "The entries are of several accounts.")
        return Parsed(signer or accounts.pop(), body_id(request.body), tuple(event for _, event, _ in found))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        return [storable({**record, "id": event.record}, body) for _, event, record in _changes(body)]


def _changes(body: bytes) -> Iterator[Found]:
    """Account, event and record of each change. Raises IntakeRefused(400)."""
    entries = read_object(body).get("entry")
    count = 0
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        account = identifier(entry.get("id"))
        for found in _of_entry(entry):
            count += 1
            if count > MOST_EVENTS:
                malformed(Reason.TOO_MANY_EVENTS, f"The body holds more than {MOST_EVENTS} events.")
            yield account, *found
    if not count:
        malformed(Reason.NO_EVENTS, "The body holds no event.")


def _of_entry(entry: Record) -> Iterator[tuple[EventDraft, Record]]:
    for each in _dicts(entry.get("changes")):
        field, value = identifier(each.get("field")), each.get("value")
        record = value if isinstance(value, dict) else {"value": value}
        if field == "leadgen" and (id_ := identifier(record.get("leadgen_id"))):
            yield draft("Lead", "afterInsert", id_), record
        else:
            id_ = identifier(record.get("id")) or stable_id({"time": entry.get("time"), **each})
            yield draft(titled(field), "afterUpdate", id_), record
    for each in _dicts(entry.get("messaging")):
        sender, message = each.get("sender"), each.get("message")
        who = identifier(sender.get("id")) if isinstance(sender, dict) else ""
        id_ = identifier(message.get("mid")) if isinstance(message, dict) else ""
        object_ = "Message" if isinstance(message, dict) else "Messaging"
        yield draft(object_, "afterInsert", id_ or stable_id(each), who), each


def _dicts(value: object) -> list[Record]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
