"""What vendors' deliveries have in common: the protocol of a source, and reading JSON from strangers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from math import isfinite
from typing import Any, NoReturn, Protocol

import msgspec

from circuit_script.errors import IntakeRefused

Record = dict[str, Any]

UNKNOWN = "unknown"
EVENTS = frozenset({"afterInsert", "afterUpdate", "afterDelete", "afterUndelete"})
RESERVED = frozenset({"Job", "Quota"})  # what the platform alone says
BY_CONTACT = frozenset({"Message", "Appointment", "Note", "Task", "Opportunity"})

MAX_IDENTIFIER = 255  # bytes of UTF-8: several stand together in one index row of at most 2,704
MAX_DEPTH = 100

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONG_NUMBER = b"0" * 19
_DIGITS_ALIKE = bytes(0x30 if 0x30 <= each <= 0x39 else 0x20 for each in range(256))
_decode = msgspec.json.Decoder().decode


class Reason(StrEnum):
    """Why a delivery was refused, as it is counted and told."""

    MISSING_SIGNATURE = "missing-signature"
    BAD_SIGNATURE = "bad-signature"
    TOO_OLD = "timestamp-too-old"
    FROM_THE_FUTURE = "timestamp-in-the-future"
    UNKNOWN_ACCOUNT = "unknown-account"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    TOO_DEEP = "nested-too-deeply"
    BAD_IDENTIFIER = "unusable-identifier"
    UNSTORABLE = "unstorable"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    UNKNOWN_SOURCE = "unknown-source"
    WRONG_METHOD = "wrong-method"
    UNKNOWN_CODING = "unknown-transfer-coding"
    OVERLOADED = "overloaded"
    DATABASE_AWAY = "database-away"


@dataclass(frozen=True, slots=True)
class EventDraft:
    """One change of one record, before it has an id."""

    object: str
    event: str
    record: str
    order_key: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a delivery says. ``vendor_id`` is the vendor's id of the delivery, where it has one; ``depth`` is how many
    of our executions, one causing the next, led to it, as far as its signature tells."""

    account: str
    vendor_id: str | None
    events: tuple[EventDraft, ...]
    depth: int = 0


class Source(Protocol):
    """One vendor's signature and shape. Headers come with lower-case names, bodies as raw bytes."""

    name: str
    overload_status: int
    kept_headers: tuple[str, ...]
    """Headers that verifying reads and that the ledger keeps."""
    has_accounts: bool
    """Whether the path names the account: ``/webhooks/{source}/{account}``."""

    def verify(self, headers: Mapping[str, str], body: bytes, now: float, path_account: str | None = None) -> None:
        """Raise IntakeRefused(401) unless the vendor signed this body. ``now`` in seconds since 1970."""

    def parse(self, headers: Mapping[str, str], body: bytes, path_account: str | None = None) -> Parsed:
        """Account and events of a verified body. Raises IntakeRefused(400)."""

    @staticmethod
    def records(body: bytes) -> list[Record]:
        """The record of each event, by ordinal, made of what PostgreSQL and msgpack can hold."""


def unauthorized(reason: Reason, detail: str) -> NoReturn:
    raise IntakeRefused(401, reason, detail)


def malformed(reason: Reason, detail: str) -> NoReturn:
    raise IntakeRefused(400, reason, detail)


def read_object(body: bytes) -> Record:
    """The JSON object in ``body``. Raises IntakeRefused(400)."""
    try:
        value = _decode(body)
    except RecursionError:
        malformed(Reason.TOO_DEEP, f"The body is nested deeper than {MAX_DEPTH} levels.")
    except ValueError:
        value = _read_with_lone_surrogates(body)
    if not isinstance(value, dict):
        malformed(Reason.NOT_AN_OBJECT, "The body is JSON but not an object.")
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _storable(value, 1)
    return value


def storable(record: Record, body: bytes) -> Record:
    """``record``, read from ``body``, made of what PostgreSQL and msgpack can hold.

    NUL and lone surrogates become U+FFFD, integers beyond 64 bits become text. The ledger keeps the original.
    """
    # All digits made alike, a search for nineteen of them is a tenth of a pattern's cost.
    if b"\\u0000" in body or _LONG_NUMBER in body.translate(_DIGITS_ALIKE):
        cleaned: Record = _storable(record, 1)
        return cleaned
    return record


def _read_with_lone_surrogates(body: bytes) -> Any:
    """Vendors cut text in the middle of an emoji; ``\\ud83d`` alone is legal JSON but not Unicode."""
    if _LONE_SURROGATE.search(body):
        try:
            value = json.loads(body.decode(), parse_constant=_refuse_number, parse_float=_finite)
            return _storable(value, 1)
        except (ValueError, RecursionError):
            pass
    malformed(Reason.NOT_JSON, "The body is not valid JSON in UTF-8.")


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        _refuse_number(text)
    return number


def _storable(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        malformed(Reason.TOO_DEEP, f"The body is nested deeper than {MAX_DEPTH} levels.")
    match value:
        case str():
            return _storable_text(value)
        case dict():
            return {_storable_text(key): _storable(each, depth + 1) for key, each in value.items()}
        case list():
            return [_storable(each, depth + 1) for each in value]
        case int() if not -(2**63) <= value < 2**64:
            return str(value)
        case _:
            return value


def _storable_text(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def identifier(value: Any) -> str:
    """``value`` as an id: text, or an integer's digits; anything else is none. Raises IntakeRefused(400)."""
    if isinstance(value, str):
        if (len(value) if value.isascii() else len(value.encode())) > MAX_IDENTIFIER:
            malformed(Reason.BAD_IDENTIFIER, f"An identifier is longer than {MAX_IDENTIFIER} bytes.")
        if "\0" in value:
            malformed(Reason.BAD_IDENTIFIER, "An identifier contains NUL.")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return identifier(str(value))
    return ""


def stable_id(record: Record) -> str:
    """An id for a record that brought none: the same content has the same id."""
    return "h-" + blake2b(msgspec.json.encode(record, order="sorted"), digest_size=16).hexdigest()


def order_key(object: str, record_id: str, record: Record) -> str:
    """What must be handled in order with this record: its contact where it hangs on one, else itself."""
    return (object in BY_CONTACT and identifier(record.get("contactId"))) or record_id
