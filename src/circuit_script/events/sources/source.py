"""What vendors' deliveries have in common: the request, the protocol of a source, and reading JSON from strangers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from math import isfinite
from typing import Any, NoReturn, Protocol, Self

import msgspec

from circuit_script.config import SourceSettings
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
_WORDS = re.compile(r"[A-Za-z0-9]+")
_DIGITS_ALIKE = bytes(0x30 if 0x30 <= each <= 0x39 else 0x20 for each in range(256))
_decode = msgspec.json.Decoder().decode


class Reason(StrEnum):
    """Why a delivery was refused, as it is counted and told."""

    MISSING_SIGNATURE = "missing-signature"
    BAD_SIGNATURE = "bad-signature"
    BAD_TIMESTAMP = "unusable-timestamp"
    TOO_OLD = "timestamp-too-old"
    FROM_THE_FUTURE = "timestamp-in-the-future"
    UNKNOWN_ACCOUNT = "unknown-account"
    NO_SECRET = "no-secret"
    UNKNOWN_KEY = "unknown-key"
    WRONG_CLAIMS = "wrong-claims"
    WRONG_CHALLENGE = "wrong-challenge"
    KEYS_AWAY = "keys-away"
    SEVERAL_ACCOUNTS = "several-accounts"
    NO_EVENTS = "no-events"
    TOO_MANY_EVENTS = "too-many-events"
    NOT_XML = "not-xml"
    NOT_A_FORM = "not-a-form"
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
    OLD_AWAY = "old-service-away"
    NOT_MIRRORED = "not-mirrored"
    OLD_TOOK = "old-service-took-it"
    UNFORWARDABLE = "unforwardable"


class EventDraft(msgspec.Struct, frozen=True, gc=False):  # made in half of a dataclass's time
    """One change of one record, before it has an id."""

    object: str
    event: str
    record: str
    order_key: str


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """What a delivery says. ``vendor_id`` is the vendor's id of the delivery, where it has one; ``depth`` is how many
    of our executions, one causing the next, led to it, as far as its signature tells."""

    account: str
    vendor_id: str | None
    events: tuple[EventDraft, ...]
    depth: int = 0


class Request(msgspec.Struct, frozen=True, gc=False):
    """What came, as it came: header names in lower case, path and query with their escapes, the body as raw bytes.
    ``received_at`` is in seconds since 1970; ``account`` is what the path names behind the source, without escapes."""

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    body: bytes
    received_at: float
    account: str | None = None

    def __repr__(self) -> str:
        """Without what may be secret: headers, and the path's end."""
        return f"<Request {self.method} of {len(self.body)} bytes>"


class Reply(msgspec.Struct, frozen=True):
    """An answer in the vendor's own words."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


class Source(Protocol):
    """One vendor's signature and shape."""

    name: str
    overload_status: int = 503
    kept_headers: tuple[str, ...] = ("content-type", "user-agent")
    """Headers that verifying reads and that the ledger keeps."""
    secret_headers: tuple[str, ...] = ()
    """Headers that verifying reads, and that are kept nowhere."""
    has_accounts: bool = False
    """Whether the path names the account: ``/webhooks/{source}/{account}``."""
    methods: tuple[str, ...] = ("POST",)
    challenges: bool = False
    """Whether ``challenge`` is to be asked before a request is taken for a delivery; a GET is never one."""
    prepares: bool = False
    """Whether ``prepare`` is to be awaited before ``verify``."""
    taken: Reply | None = None
    """What a delivery that is in the ledger is answered; None is its id as JSON, 202 or 200."""
    later: Reply | None = None
    """What is answered when it should be sent again; None is a problem with ``overload_status``."""

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Self:
        """Raises ConfigError for a key that is none."""
        ...

    def challenge(self, request: Request) -> Reply | None:
        """The answer to a vendor who asks whether we are who it thinks; None for a delivery. Raises IntakeRefused."""
        return None

    async def prepare(self, request: Request) -> None:
        """Fetch what verifying needs. Raises IntakeRefused where it cannot be had."""

    def verify(self, request: Request) -> str:
        """Whose key it is that signed this request: an account, or "" for a key that speaks for all of them.

        Raises IntakeRefused, 401 unless the vendor signed it.
        """
        ...

    def parse(self, request: Request, signer: str = "") -> Parsed:
        """Account and events of a verified request, at least one. Raises IntakeRefused(400)."""
        ...

    @staticmethod
    def records(body: bytes) -> list[Record]:
        """The record of each event, by ordinal, made of what PostgreSQL and msgpack can hold."""
        ...


def unauthorized(reason: Reason, detail: str) -> NoReturn:
    raise IntakeRefused(401, reason, detail)


def malformed(reason: Reason, detail: str) -> NoReturn:
    raise IntakeRefused(400, reason, detail)


def read_object(body: bytes) -> Record:
    """The JSON object in ``body``. Raises IntakeRefused(400)."""
    value = read_value(body)
    if not isinstance(value, dict):
        malformed(Reason.NOT_AN_OBJECT, "The body is JSON but not an object.")
    return value


def read_value(body: bytes) -> Any:
    """The JSON in ``body``, nested at most ``MAX_DEPTH`` levels deep. Raises IntakeRefused(400)."""
    try:
        value = _decode(body)
    except RecursionError:
        malformed(Reason.TOO_DEEP, f"The body is nested deeper than {MAX_DEPTH} levels.")
    except ValueError:
        value = _read_with_lone_surrogates(body)
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


def draft(object: str, event: str, record_id: str, order: str = "") -> EventDraft:
    """An event; of an object that is the platform's own it is unknown."""
    known = event if object not in RESERVED else UNKNOWN
    return EventDraft(object or UNKNOWN, known, record_id, order or record_id)


def titled(name: str) -> str:
    """``checkout.session`` → ``CheckoutSession``, ``pull_request`` → ``PullRequest``; at most 100 characters."""
    return "".join(part[:1].upper() + part[1:] for part in _WORDS.findall(name[:200]))[:100]


def body_id(body: bytes) -> str:
    """An id for a delivery whose vendor gives none: the same bytes have the same id."""
    return "b-" + blake2b(body, digest_size=16).hexdigest()


def ids_together(ids: Sequence[str]) -> str | None:
    """One id for several: what a delivery of several events is known by. None where there is none."""
    if len(ids) == 1:
        return ids[0] or None
    return "m-" + blake2b("\0".join(ids).encode(), digest_size=16).hexdigest() if all(ids) and ids else None


def stable_id(record: Record) -> str:
    """An id for a record that brought none: the same content has the same id."""
    return "h-" + blake2b(msgspec.json.encode(record, order="sorted"), digest_size=16).hexdigest()


def order_key(object: str, record_id: str, record: Record) -> str:
    """What must be handled in order with this record: its contact where it hangs on one, else itself."""
    return (object in BY_CONTACT and identifier(record.get("contactId"))) or record_id
