"""Google Business Profile, told by Pub/Sub: a token says who pushes, the body only names what there is to be read."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from circuit_script.config import SourceSettings
from circuit_script.errors import IntakeRefused
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
    malformed,
    read_object,
    stable_id,
    storable,
    unauthorized,
)
from circuit_script.events.sources.verify import check_token, raw, token_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

AUTHORIZATION = "authorization"
ISSUERS = ("accounts.google.com", "https://accounts.google.com")
LIFE = 3600.0  # seconds that fetched keys are good, unless their answer says less
PATIENCE = 5.0  # seconds for a fetch
PAUSE = 30.0  # seconds between two fetches: tokens of strangers can name any key
MAX_KEYS = 262_144  # bytes

OBJECTS = {
    "REVIEW": "Review",
    "QUESTION": "Question",
    "ANSWER": "Answer",
    "CUSTOMER_MEDIA": "Media",
}
FIELDS = ("review", "question", "answer", "media", "mediaItem", "resourceName")

log = logging.getLogger(__name__)


class PublishedKeys:
    """The keys that an issuer publishes, fetched when one is missing or they are old."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._turn = asyncio.Lock()
        self._until = 0.0
        self._again = 0.0
        self.keys: Mapping[str, RSAPublicKey] = {}

    async def ready(self, kid: str) -> None:
        """Fetch them unless this one is known and not old. Raises IntakeRefused(503) while there are none at all."""
        if self._fresh(kid):
            return
        async with self._turn:
            now = self._clock()
            if not self._fresh(kid) and now >= self._again:
                self._again = now + PAUSE
                await self._fetch(now)
        if not self.keys or self._clock() >= self._until:
            raise IntakeRefused(503, Reason.KEYS_AWAY, "Google's keys cannot be had now; send again.")

    def _fresh(self, kid: str) -> bool:
        return kid in self.keys and self._clock() < self._until

    async def _fetch(self, now: float) -> None:
        import httpx

        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=PATIENCE) as client:
                async with client.stream("GET", self._url) as answer:
                    answer.raise_for_status()
                    body = bytearray()
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > MAX_KEYS:
                            raise ValueError("the keys are too large")
            keys = read_keys(bytes(body))
        except (httpx.HTTPError, TimeoutError, OSError, ValueError) as error:
            log.warning("Google's keys could not be fetched: %s", type(error).__name__)
            return
        self.keys = keys
        self._until = now + min(LIFE, _max_age(answer.headers.get("cache-control", "")))


class Google(Source):
    """Pushes of one subscription; an account is a location's name ("accounts/1/locations/2")."""

    name = "google"
    secret_headers = (AUTHORIZATION,)
    prepares = True

    def __init__(self, audiences: Sequence[str], service_accounts: Sequence[str], keys: PublishedKeys) -> None:
        """For whom tokens are made, and to which service accounts (e-mail addresses). Without both, all are refused."""
        self._audiences = tuple(audiences)
        self._emails = tuple(service_accounts)
        self._keys = keys

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Google:
        vendor = settings.google
        return cls(tuple(vendor.audience), tuple(vendor.service_accounts), PublishedKeys(vendor.keys_url))

    async def prepare(self, request: Request) -> None:
        if self._audiences and self._emails:
            await self._keys.ready(token_key(_token(request)))

    def verify(self, request: Request) -> str:
        if not (self._audiences and self._emails):
            unauthorized(Reason.NO_SECRET, "No audience and service account are configured for this source.")
        claims = check_token(_token(request), self._keys.keys, request.received_at)
        if not _is_one_of(claims.get("iss"), ISSUERS):
            unauthorized(Reason.WRONG_CLAIMS, "The token is not Google's.")
        if not _is_one_of(claims.get("aud"), self._audiences):
            unauthorized(Reason.WRONG_CLAIMS, "The token is for another audience.")
        if claims.get("email_verified") is not True or not _is_one_of(claims.get("email"), self._emails):
            unauthorized(Reason.WRONG_CLAIMS, "The token is of another service account.")
        return ""

    def parse(self, request: Request, signer: str = "") -> Parsed:
        message, content = _read(request.body)
        once = identifier(message.get("messageId")) or identifier(message.get("message_id"))
        return Parsed(_location(content), once or None, (_event_of(content),))

    @staticmethod
    def records(body: bytes) -> list[Record]:
        _, content = _read(body)
        event = _event_of(content)
        return [{**content, "id": event.record, "name": event.record}]


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get(AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        unauthorized(Reason.MISSING_SIGNATURE, "The header Authorization: Bearer is missing.")
    return token.strip()


def _is_one_of(value: Any, wanted: Sequence[str]) -> bool:
    if not isinstance(value, str):
        return False
    same = [hmac.compare_digest(each.encode(), value.encode("utf-8", "replace")) for each in wanted]
    return any(same)


def read_keys(body: bytes) -> dict[str, RSAPublicKey]:
    """RSA keys of a JSON Web Key Set, by their id. Raises ValueError where there are none."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    try:
        listed = msgspec.json.decode(body)["keys"]
        found = {}
        for each in listed:
            if each.get("kty") == "RSA" and each.get("alg", "RS256") == "RS256" and each.get("use", "sig") == "sig":
                found[str(each["kid"])] = RSAPublicNumbers(_number(each["e"]), _number(each["n"])).public_key()
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("this is not a set of keys") from error
    if not found or any(key.key_size < 2048 for key in found.values()):
        raise ValueError("this is not a set of keys")
    return found


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(raw(text) + b"=="), "big")


def _max_age(said: str) -> float:
    for part in said.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "max-age" and value.isascii() and value.isdigit():
            return max(PAUSE, float(value[:9]))
    return LIFE


def _read(body: bytes) -> tuple[Record, Record]:
    """Pub/Sub's message, and the notification in it. Raises IntakeRefused(400)."""
    message = read_object(body).get("message")
    if not isinstance(message, dict):
        malformed(Reason.NO_EVENTS, "The body holds no message.")
    data = message.get("data")
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except ValueError:
        malformed(Reason.NOT_JSON, "The message's data is not base64.")
    return message, storable(read_object(content), content) if content else {}


def _event_of(content: Record) -> EventDraft:
    """``NEW_REVIEW`` is a Review that is new; what is told of a location is an update of it."""
    kind = identifier(content.get("notificationType")) or identifier(content.get("type"))
    verb, _, what = kind.partition("_")
    named = next((found for name in FIELDS if (found := identifier(content.get(name)))), "")
    object_ = OBJECTS.get(what)
    if object_ and verb in ("NEW", "UPDATED"):
        return draft(object_, "afterInsert" if verb == "NEW" else "afterUpdate", named or stable_id(content))
    location = _location(content)
    if kind and location:
        return draft("Location", "afterUpdate", location)
    return draft(UNKNOWN, UNKNOWN, named or stable_id(content))


def _location(content: Record) -> str:
    """The location that it is about; a review's name begins with it."""
    for name in ("location", "locationName", *FIELDS, "name"):
        parts = identifier(content.get(name)).split("/")
        if len(parts) >= 4 and parts[0] == "accounts" and parts[2] == "locations":
            return "/".join(parts[:4])
    for name in ("location", "locationName"):
        if found := identifier(content.get(name)):
            return found
    return ""
