"""Standard Webhooks (https://www.standardwebhooks.com), one set of secrets per account."""

from __future__ import annotations

import base64
import hashlib
import hmac
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
    identifier,
    order_key,
    read_object,
    stable_id,
    storable,
    unauthorized,
)

TOLERANCE = 300  # seconds, into the past and into the future


class Standard:
    """``type`` is ``Contact.afterInsert``, ``data`` the record, ``webhook-id`` the delivery's id."""

    name = "standard"
    overload_status = 503
    has_accounts = True
    kept_headers: tuple[str, ...] = (
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

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Standard:
        return cls(settings.standard.secrets)

    def verify(self, headers: Mapping[str, str], body: bytes, now: float, path_account: str | None = None) -> None:
        keys = self._keys.get(path_account or "")
        if not keys:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "No secret is configured for this account.")
        id_, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        listed = headers.get("webhook-signature", "")
        if not (id_ and stamp and listed):
            unauthorized(Reason.MISSING_SIGNATURE, "webhook-id, webhook-timestamp or webhook-signature is missing.")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
            unauthorized(Reason.BAD_SIGNATURE, "webhook-timestamp is not a number of seconds.")
        # The headers were decoded as latin-1; what was signed are their bytes.
        if not _fits(keys, f"{id_}.{stamp}.".encode("latin-1", "replace") + body, listed):
            unauthorized(Reason.BAD_SIGNATURE, "The signature does not fit the body.")
        if int(stamp) < now - TOLERANCE:
            unauthorized(Reason.TOO_OLD, f"webhook-timestamp is more than {TOLERANCE} s old.")
        if int(stamp) > now + TOLERANCE:
            unauthorized(Reason.FROM_THE_FUTURE, f"webhook-timestamp is more than {TOLERANCE} s ahead.")

    def parse(self, headers: Mapping[str, str], body: bytes, path_account: str | None = None) -> Parsed:
        payload = read_object(body)
        object, event = kind_of(identifier(payload.get("type")))
        record, record_id = _record_of(payload)
        draft = EventDraft(object, event, record_id, order_key(object, record_id, record))
        id_ = headers.get("webhook-id", "")
        keys = self._keys.get(path_account or "", ())
        deep = depth.read(headers.get(depth.HEADER), keys, id_, headers.get("webhook-timestamp", ""))
        return Parsed(identifier(path_account), identifier(id_) or None, (draft,), deep)

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


def _fits(keys: Sequence[bytes], signed: bytes, listed: str) -> bool:
    given = [part[3:].encode() for part in listed.split(" ") if part.startswith("v1,")]
    good = False
    for key in keys:
        wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        for each in given:
            good |= hmac.compare_digest(wanted, each)
    return good


def _key_of(secret: str, account: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigError(
            f"sources.standard.secrets.{account} is not a secret.",
            cure="Give it as whsec_ and base64.",
            page="signing-key",
        )
    return key
