"""GitHub: HMAC over the body; the event's name stands in a header."""

from __future__ import annotations

from circuit_script.config import SourceSettings
from circuit_script.events.sources.forms import read_form
from circuit_script.events.sources.source import (
    UNKNOWN,
    Parsed,
    Reason,
    Record,
    Request,
    Source,
    draft,
    identifier,
    malformed,
    read_object,
    stable_id,
    storable,
    titled,
)
from circuit_script.events.sources.verify import Keyring, mac, needed, raw

SIGNATURE, EVENT, DELIVERY = "x-hub-signature-256", "x-github-event", "x-github-delivery"
EVENTS = {
    "opened": "afterInsert",
    "created": "afterInsert",
    "added": "afterInsert",
    "published": "afterInsert",
    "submitted": "afterInsert",
    "deleted": "afterDelete",
    "removed": "afterDelete",
}
NAMES = {"issues": "issue", "pull_request_review": "review", "pull_request_review_comment": "comment"}
NAMES |= {"issue_comment": "comment", "commit_comment": "comment"}
# Where a payload's record stands; a comment comes with what it is about, so the nearest goes first.
RECORDS = ("comment", "review", "pull_request", "issue", "release", "workflow_run", "check_run", "deployment", "label")


class GitHub(Source):
    """Webhooks of repositories, organizations and apps; an account is the repository's full name."""

    name = "github"
    kept_headers = (SIGNATURE, EVENT, DELIVERY, "content-type", "user-agent")

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> GitHub:
        return cls(Keyring.of(settings.github.secrets, "sources.github.secrets"))

    def verify(self, request: Request) -> str:
        (signature,) = needed(request, SIGNATURE)
        return self._keys.signer(lambda key: [b"sha256=" + mac(key, request.body)], [raw(signature)])

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = _payload(request.body)
        name = identifier(request.headers.get(EVENT))
        action = identifier(payload.get("action"))
        event = EVENTS.get(action, "afterUpdate") if action else "afterInsert" if name == "push" else UNKNOWN
        _, id_ = _record_of(payload)
        event_draft = draft(titled(NAMES.get(name, name)), event, id_)
        once = identifier(request.headers.get(DELIVERY)) or None
        return Parsed(signer or _account(payload), once, (event_draft,))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        payload = _payload(body)
        content, id_ = _record_of(payload)
        return [{**content, "id": id_}]


def _payload(body: bytes) -> Record:
    """JSON, or a form with JSON in it, as a webhook's settings say. Raises IntakeRefused(400)."""
    if not body.startswith(b"payload="):
        return storable(read_object(body), body)
    inner = dict(read_form(body)).get("payload", "")
    if not inner:
        malformed(Reason.NOT_JSON, "The form holds no payload.")
    content = inner.encode("utf-8", "replace")
    return storable(read_object(content), content)


def _record_of(payload: Record) -> tuple[Record, str]:
    """The record with the action and the repository beside it, and its id."""
    name, inner = next(((each, found) for each in RECORDS if isinstance(found := payload.get(each), dict)), ("", None))
    repository = payload.get("repository")
    beside: Record = {"action": payload.get("action")}
    if isinstance(repository, dict):
        beside["repository"] = repository.get("full_name")
    if inner is None:
        id_ = identifier(payload.get("after")) or identifier(payload.get("hook_id"))
        return payload, id_ or stable_id(payload)
    id_ = identifier(inner.get("node_id")) or identifier(inner.get("id"))
    return {**inner, **beside}, id_ or stable_id({name: inner})


def _account(payload: Record) -> str:
    for name, part in (("repository", "full_name"), ("organization", "login"), ("installation", "id")):
        inner = payload.get(name)
        if isinstance(inner, dict) and (found := identifier(inner.get(part))):
            return found
    return ""
