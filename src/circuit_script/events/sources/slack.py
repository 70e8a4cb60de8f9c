"""Slack: the Events API, slash commands and interactions, and the question whether it is us."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.forms import read_form, storable_form
from circuit_script.events.sources.source import (
    UNKNOWN,
    EventDraft,
    Parsed,
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
)
from circuit_script.events.sources.verify import Keyring, check_clock, mac, moment, needed, raw

SIGNATURE, STAMP = "x-slack-signature", "x-slack-request-timestamp"
MESSAGES = {"message_changed": "afterUpdate", "message_deleted": "afterDelete"}


class Slack(Source):
    """Requests of one app in all workspaces; an account is a team's id."""

    name = "slack"
    kept_headers = (SIGNATURE, STAMP, "x-slack-retry-num", "content-type", "user-agent")
    challenges = True
    taken = Reply()  # the body that answers a slash command is shown to who typed it

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Slack:
        return cls(Keyring.of(settings.slack.secrets, "sources.slack.secrets"))

    def challenge(self, request: Request) -> Reply | None:
        if b"url_verification" not in request.body[:10_000]:
            return None
        self.verify(request)
        payload = _payload(request.body)
        if payload.get("type") != "url_verification":
            return None
        return Reply(identifier(payload.get("challenge")).encode())

    def verify(self, request: Request) -> str:
        signature, stamp = needed(request, SIGNATURE, STAMP)
        signed_at = moment(stamp)
        signed = raw(f"v0:{stamp}:") + request.body
        signer = self._keys.signer(lambda key: [b"v0=" + mac(key, signed)], [raw(signature)])
        check_clock(signed_at, request.received_at)
        return signer

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = _payload(request.body)
        team = payload.get("team")
        account = identifier(payload.get("team_id")) or (identifier(team.get("id")) if isinstance(team, dict) else "")
        once = identifier(payload.get("event_id")) or identifier(payload.get("trigger_id"))
        return Parsed(signer or account, once or body_id(request.body), (_event_of(payload)[0],))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        event, content = _event_of(_payload(body))
        return [{**content, "id": event.record}]


def _payload(body: bytes) -> Record:
    """JSON, or a form: of fields, or of one field with JSON in it. Raises IntakeRefused(400)."""
    if body.lstrip()[:1] == b"{":
        return storable(read_object(body), body)
    fields = storable_form(read_form(body))
    inner = fields.get("payload")
    if isinstance(inner, str):
        content = inner.encode("utf-8", "replace")
        return storable(read_object(content), content)
    return {"type": "slash_command", **fields} if "command" in fields else fields


def _event_of(payload: Record) -> tuple[EventDraft, Record]:
    type_ = identifier(payload.get("type"))
    event = payload.get("event")
    if type_ == "event_callback" and isinstance(event, dict):
        return _event_callback(payload, event)
    id_ = identifier(payload.get("trigger_id")) or stable_id(payload)
    if type_ == "slash_command":
        return draft("Command", "afterInsert", id_, identifier(payload.get("channel_id"))), payload
    kind = "afterInsert" if identifier(payload.get("trigger_id")) else UNKNOWN
    return draft("Interaction" if kind != UNKNOWN else titled(type_), kind, id_), payload


def _event_callback(payload: Record, event: Record) -> tuple[EventDraft, Record]:
    type_ = identifier(event.get("type"))
    channel = identifier(event.get("channel"))
    if type_ != "message":
        id_ = identifier(payload.get("event_id")) or stable_id(payload)
        return draft(titled(type_), "afterInsert", id_, channel), event
    subtype = identifier(event.get("subtype"))
    message = event.get("message") if subtype == "message_changed" else None
    content = {**event, **message} if isinstance(message, dict) else event
    stamp = identifier(event.get("deleted_ts")) or identifier(content.get("ts"))
    id_ = identifier(f"{channel}:{stamp}") if stamp else stable_id(event)
    return draft("Message", MESSAGES.get(subtype, "afterInsert"), id_, channel), content
