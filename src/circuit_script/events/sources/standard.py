"""Standard Webhooks (https://www.standardwebhooks.com), one set of secrets per account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuit_script.config import SourceSettings
from circuit_script.connectors import depth
from circuit_script.errors import ConfigError
from circuit_script.events.sources.source import (
    EVENTS,
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
from circuit_script.events.sources.verify import Keyring, check_standard, standard_key


class Standard(Source):
    """``type`` is ``Contact.afterInsert``, ``data`` the record, ``webhook-id`` the delivery's id."""

    name = "standard"
    has_accounts = True
    kept_headers = (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "content-type",
        "user-agent",
        depth.HEADER,
    )

    def __init__(self, secrets: Mapping[str, Sequence[str]]) -> None:
        """``secrets`` is account → secrets (``whsec_…``); while they rotate, each of them is good."""
        self._keys = {
            account: tuple(_key_of(secret, account) for secret in several) for account, several in secrets.items()
        }
        self._rings = {account: Keyring((account, key) for key in keys) for account, keys in self._keys.items()}

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Standard:
        return cls(settings.standard.secrets)

    def verify(self, request: Request) -> str:
        keys = self._rings.get(request.account or "")
        if not keys:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "No secret is configured for this account.")
        return check_standard(keys, request, "webhook")

    def parse(self, request: Request, signer: str = "") -> Parsed:
        payload = read_object(request.body)
        object, event = kind_of(identifier(payload.get("type")))
        record, record_id = _record_of(payload)
        draft = EventDraft(object, event, record_id, order_key(object, record_id, record))
        headers = request.headers
        id_ = headers.get("webhook-id", "")
        keys = self._keys.get(request.account or "", ())
        deep = depth.read(headers.get(depth.HEADER), keys, id_, headers.get("webhook-timestamp", ""))
        return Parsed(identifier(request.account), identifier(id_) or None, (draft,), deep)

    @staticmethod
    def records(body: bytes) -> list[Record]:
        record, record_id = _record_of(read_object(body))
        record = storable(record, body)
        record["id"] = record_id
        return [record]


def kind_of(type_: str) -> tuple[str, str]:
    """(object, event) of ``Contact.afterInsert``; any other type is an object of its own, and unknown."""
    object, _, event = type_.rpartition(".")
    known = object and event in EVENTS and object not in RESERVED
    return (object, event) if known else (type_ or UNKNOWN, UNKNOWN)


def _record_of(payload: Record) -> tuple[Record, str]:
    data = payload.get("data")
    record = dict(data) if isinstance(data, dict) else {}
    return record, identifier(record.get("id")) or stable_id(record or payload)


def _key_of(secret: str, account: str) -> bytes:
    try:
        key = standard_key(secret)
    except ValueError:
        key = b""
    if not key:
        raise ConfigError(
            f"sources.standard.secrets.{account} is not a secret.",
            cure="Give it as whsec_ and base64.",
            page="signing-key",
        )
    return key
