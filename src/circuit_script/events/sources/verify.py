"""The one place where signatures are checked: over raw bytes, in constant time, closed to whatever is not understood.

Everything here raises IntakeRefused with a Reason, or says whose key it was; nothing else leaves, whatever comes. What
was signed is compared before the clock is, and the clock is held against both sides: what is too old may be a replay,
what comes from the future would be good for as long as its sender likes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from circuit_script.errors import ConfigError
from circuit_script.events.sources.source import Reason, Request, unauthorized

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from circuit_script.settings_sources import HmacSettings, VapiSettings

TOLERANCE = 300.0  # seconds, into the past and into the future
LEEWAY = 60.0  # seconds that clocks of tokens may differ
MOST_SIGNATURES = 20  # of one request that are looked at
MAX_TOKEN = 16_384  # characters

Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64", "base64url"]
Secrets = Sequence[str] | Mapping[str, Sequence[str]]

_MISMATCH = "The signature does not fit the request."


class Keyring:
    """The secrets of one source: each with the account that it speaks for, "" for all of them."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def of(cls, secrets: Secrets, where: str, read: Callable[[str], bytes] = str.encode) -> Keyring:
        """Of settings. Raises ConfigError, which names ``where`` they stand, for one that is none (``read`` raises
        ValueError), and for one that would speak for two accounts."""
        by_account = secrets if isinstance(secrets, Mapping) else {"": secrets}
        keys: dict[bytes, str] = {}
        for account, several in by_account.items():
            for each in several:
                key = _key_of(each, read, where)
                if keys.setdefault(key, account) != account:
                    raise ConfigError(
                        f"{where} gives {keys[key]!r} and {account!r} the same secret.",
                        cure="Give each account its own.",
                        page="signing-key",
                    )
        return cls((account, key) for key, account in keys.items())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"

    @property
    def first(self) -> bytes:
        """The key to sign with; only of a ring that has one."""
        return self._keys[0][1]

    def signer(
        self, make: Callable[[bytes], Sequence[bytes]], given: Sequence[bytes], account: str | None = None
    ) -> str:
        """The account of the key of which ``make`` makes one of the signatures that came.

        With ``account``, a claim of the request, only its keys and those for all are good. Raises IntakeRefused(401).
        """
        if not self._keys:
            unauthorized(Reason.NO_SECRET, "No secret is configured for this source.")
        good: str | None = None
        known = False
        for of, key in self._keys:
            if account is not None and of and of != account:
                continue
            known = True
            for wanted in make(key):
                for each in given[:MOST_SIGNATURES]:
                    if hmac.compare_digest(wanted, each) and good is None:
                        good = of
        if not known:
            unauthorized(Reason.UNKNOWN_ACCOUNT, "No secret is configured for this account.")
        if good is None:
            unauthorized(Reason.BAD_SIGNATURE, _MISMATCH)
        return good


def mac(key: bytes, signed: bytes, algorithm: Algorithm = "sha256", encoding: Encoding = "hex") -> bytes:
    """An HMAC as text, in ASCII. The text is compared, not what it decodes to: one signature has one spelling."""
    made = hmac.digest(key, signed, algorithm)
    match encoding:
        case "hex":
            return made.hex().encode()
        case "base64":
            return base64.b64encode(made)
        case "base64url":
            return base64.urlsafe_b64encode(made)


def raw(text: str) -> bytes:
    """The bytes that a header came as; the gateway decoded them as latin-1."""
    return text.encode("latin-1", "replace")


def needed(request: Request, *names: str) -> list[str]:
    """These headers, none of them empty. Raises IntakeRefused(401)."""
    found = [request.headers.get(name, "") for name in names]
    if not all(found):
        missing = next(name for name, value in zip(names, found, strict=True) if not value)
        unauthorized(Reason.MISSING_SIGNATURE, f"The header {missing} is missing.")
    return found


def moment(text: str, unit: Literal["s", "ms", "either"] = "s") -> float:
    """Seconds since 1970 of a timestamp in digits. Raises IntakeRefused(401)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        unauthorized(Reason.BAD_TIMESTAMP, "The timestamp is not a number of seconds or milliseconds.")
    number = int(text)
    in_thousandths = unit == "ms" or (unit == "either" and number >= 10**11)  # in seconds that is the year 5138
    return number / 1000 if in_thousandths else float(number)


def check_clock(signed_at: float, now: float, tolerance: float = TOLERANCE) -> None:
    """Raises IntakeRefused(401) for what was signed too long ago, or in the future. In seconds."""
    if signed_at < now - tolerance:
        unauthorized(Reason.TOO_OLD, f"The timestamp is more than {tolerance:g} s old.")
    if signed_at > now + tolerance:
        unauthorized(Reason.FROM_THE_FUTURE, f"The timestamp is more than {tolerance:g} s ahead.")


def public_url(configured: str, request: Request) -> str:
    """The address as the vendor has it: as configured, else as the request names it; with the request's own query."""
    url = configured or f"https://{request.headers.get('host', '')}{request.path}"
    return f"{url}?{request.query.decode('latin-1')}" if request.query else url


def standard_key(secret: str) -> bytes:
    """The key of a secret of Standard Webhooks. Raises ValueError."""
    return base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)


def check_standard(
    keys: Keyring, request: Request, prefix: str, account: str | None = None, tolerance: float = TOLERANCE
) -> str:
    """Standard Webhooks, under headers that begin with ``prefix`` ("webhook", "svix"). Raises IntakeRefused(401)."""
    id_, stamp, listed = needed(request, f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")
    signed_at = moment(stamp)
    signed = raw(f"{id_}.{stamp}.") + request.body
    given = [raw(part[3:]) for part in listed.split(" ", MOST_SIGNATURES) if part.startswith("v1,")]
    signer = keys.signer(lambda key: [mac(key, signed, encoding="base64")], given, account)
    check_clock(signed_at, request.received_at, tolerance)
    return signer


class Template:
    """What a configured sender signs, and where its signature stands."""

    def __init__(self, settings: HmacSettings | VapiSettings, keys: Keyring, where: str) -> None:
        """Raises ConfigError for a template that would let body or age of a request be forged."""
        self._settings = settings
        self._keys = keys
        self._parts = [part for part in re.split(r"(\{[^{}]*\})", settings.template) if part]
        named = {part[1:-1] for part in self._parts if part.startswith("{")}
        self._stamp = settings.timestamp_header.lower()
        of_headers = {name.removeprefix("header:").lower() for name in named if name.startswith("header:")}
        self.headers = tuple({settings.header.lower(), *([self._stamp] if self._stamp else []), *of_headers, "host"})
        unknown = named - {"body", "timestamp", "method", "url", "path", "query"} - {
            name for name in named if re.fullmatch(r"header:[A-Za-z0-9-]+", name)
        }  # fmt: skip
        fault = ""
        if unknown:
            fault = f"names {{{min(unknown)}}}, which is not known"
        elif "body" not in named:
            fault = "is without {body}: then nobody signs the body"
        elif ("timestamp" in named) != bool(self._stamp):
            fault = "and timestamp_header belong together: a timestamp that nobody signed tells no age"
        if fault:
            raise ConfigError(f"{where}.template {fault}.", cure="Mend it in circuit.toml.", page="signing-key")

    def check(self, request: Request) -> str:
        """Whose key signed this request. Raises IntakeRefused(401)."""
        settings = self._settings
        listed = request.headers.get(settings.header.lower(), "")
        if not self._keys:
            unauthorized(Reason.NO_SECRET, "No secret is configured for this source.")
        if not listed:
            unauthorized(Reason.MISSING_SIGNATURE, f"The header {settings.header} is missing.")
        signed_at = None
        if self._stamp:
            (stamp,) = needed(request, self._stamp)
            signed_at = moment(stamp, "either")
        parts = [part.strip() for part in listed.split(",", MOST_SIGNATURES)]
        given = [raw(part.removeprefix(settings.prefix)) for part in parts if part.startswith(settings.prefix)]
        signed = b"".join(self._bytes(part, request) for part in self._parts)
        signer = self._keys.signer(lambda key: [mac(key, signed, settings.algorithm, settings.encoding)], given)
        if signed_at is not None:
            check_clock(signed_at, request.received_at, settings.tolerance)
        return signer

    def _bytes(self, part: str, request: Request) -> bytes:
        match part:
            case "{body}":
                return request.body
            case "{timestamp}":
                return raw(request.headers[self._stamp])
            case "{method}":
                return request.method.encode()
            case "{url}":
                return raw(public_url(self._settings.url, request))
            case "{path}":
                return raw(request.path)
            case "{query}":
                return request.query
            case _ if part.startswith("{header:"):
                return raw(request.headers.get(part[8:-1].lower(), ""))
            case _:
                return part.encode()


class PublicKeys:
    """GoHighLevel's keys: Ed25519, and RSA as it signed before. Signatures are in base64; what is none fits nothing."""

    def __init__(self, public_key: str, legacy_key: str | None, test_public_key: str) -> None:
        """Keys are base64 of the DER, or PEM. Raises ConfigError for what is no key of its kind."""
        # Two libraries, for those who open a source only.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from nacl.exceptions import CryptoError

        self._keys = [_ed25519(public_key, "public_key")]
        if test_public_key:
            self._keys.append(_ed25519(test_public_key, "test_public_key"))
        self._wrong = (CryptoError, InvalidSignature, ValueError, TypeError)
        self._legacy: RSAPublicKey | None = None
        self._how = (PKCS1v15(), SHA256())
        if legacy_key is not None:
            old = _load(legacy_key, "legacy_key")
            if not isinstance(old, RSAPublicKey):
                raise ConfigError("sources.gohighlevel.legacy_key is not an RSA key.", page="signing-key")
            self._legacy = old

    @property
    def knows_legacy(self) -> bool:
        return self._legacy is not None

    def fits(self, body: bytes, signature: str) -> bool:
        """Whether one of the Ed25519 keys signed this."""
        # 64 bytes have 88 characters, of which the last but two carries two bits: one signature has one spelling.
        if len(signature) != 88 or signature[85] not in "AQgw":
            return False
        try:
            given = base64.b64decode(signature, validate=True)
        except ValueError:
            return False
        return any(self._signed(key, body, given) for key in self._keys)

    def fits_legacy(self, body: bytes, signature: str) -> bool:
        """Whether the RSA key signed this; no when there is none."""
        if self._legacy is None:
            return False
        try:
            given = base64.b64decode(signature, validate=True)
            self._legacy.verify(given, body, *self._how)
        except self._wrong:
            return False
        return base64.b64encode(given).decode() == signature

    def _signed(self, key: Any, body: bytes, signature: bytes) -> bool:
        try:
            key.verify(body, signature)
        except self._wrong:
            return False
        return True


def _ed25519(text: str, setting: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from nacl.signing import VerifyKey

    key = _load(text, setting)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"sources.gohighlevel.{setting} is not an Ed25519 key.", page="signing-key")
    # libsodium verifies in half of OpenSSL's time, and this is the largest cost of an intake (decision 0004).
    return VerifyKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _load(text: str, setting: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    text = text.strip().replace("\\n", "\n")  # an environment variable holds a PEM on one line
    try:
        if text.startswith("-----BEGIN"):
            return load_pem_public_key(text.encode())
        return load_der_public_key(base64.b64decode(text, validate=True))
    except ValueError:
        raise ConfigError(
            f"sources.gohighlevel.{setting} is not a public key.",
            cure="Give base64 of its DER, or PEM.",
            page="signing-key",
        ) from None


def token_key(token: str) -> str:
    """The id of the key that a JSON Web Token says it is signed with. Raises IntakeRefused(401)."""
    head = _json(_parts(token)[0])
    if head.get("alg") != "RS256":
        unauthorized(Reason.BAD_SIGNATURE, "The token is not signed with RS256.")
    kid = head.get("kid")
    if not isinstance(kid, str):
        unauthorized(Reason.UNKNOWN_KEY, "The token names no key.")
    return kid


def check_token(token: str, keys: Mapping[str, RSAPublicKey], now: float) -> dict[str, Any]:
    """The claims of a JSON Web Token (RS256) that one of these keys signed and that is good now. Whoever calls this
    checks for whom it is. Raises IntakeRefused(401)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    key = keys.get(token_key(token))
    if key is None:
        unauthorized(Reason.UNKNOWN_KEY, "The token is signed with a key that its issuer does not publish.")
    head, body, signature = _parts(token)
    try:
        key.verify(_decoded(signature), f"{head}.{body}".encode("ascii", "replace"), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        unauthorized(Reason.BAD_SIGNATURE, "The token's signature does not fit it.")
    claims = _json(body)
    ends, begins = _number(claims.get("exp")), _number(claims.get("iat"))
    if ends is None or begins is None:
        unauthorized(Reason.WRONG_CLAIMS, "The token does not say from when to when it is good.")
    if ends < now - LEEWAY:
        unauthorized(Reason.TOO_OLD, "The token has expired.")
    if begins > now + LEEWAY:
        unauthorized(Reason.FROM_THE_FUTURE, "The token was issued in the future.")
    return claims


def _parts(token: str) -> list[str]:
    parts = token.split(".", 3)
    if len(token) > MAX_TOKEN or len(parts) != 3 or not all(parts):
        unauthorized(Reason.BAD_SIGNATURE, "This is not a JSON Web Token.")
    return parts


def _decoded(text: str) -> bytes:
    """Base64url without padding, in its one spelling. Raises IntakeRefused(401)."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        unauthorized(Reason.BAD_SIGNATURE, "The token is not base64url.")
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        unauthorized(Reason.BAD_SIGNATURE, "The token is not base64url.")
    return found


def _json(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_decoded(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        unauthorized(Reason.BAD_SIGNATURE, "The token holds no JSON object.")
    return found


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def sha256_hex(*parts: bytes) -> bytes:
    """A plain hash over parts, as text."""
    return hashlib.sha256(b"".join(parts)).hexdigest().encode()


def _key_of(secret: str, read: Callable[[str], bytes], where: str) -> bytes:
    try:
        key = read(secret.strip())
    except ValueError:
        key = b""
    if not key:
        raise ConfigError(f"{where} holds what is not a secret.", cure="Copy it from the vendor.", page="signing-key")
    return key
