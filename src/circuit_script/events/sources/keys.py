"""GoHighLevel's keys: Ed25519, and RSA as it signed before."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from circuit_script.errors import ConfigError


class Keys:
    """The keys of a source. Signatures are in base64; what is none fits nothing."""

    def __init__(self, public_key: str, legacy_key: str | None, test_public_key: str) -> None:
        """Keys are base64 of the DER, or PEM. Raises ConfigError for what is no key of its kind."""
        self._keys = [_verify_key(public_key, "public_key")]
        if test_public_key:
            self._keys.append(_verify_key(test_public_key, "test_public_key"))
        self._legacy: RSAPublicKey | None = None
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
        try:
            given = base64.b64decode(signature, validate=True)
        except ValueError:
            return False
        return any(_signed(key, body, given) for key in self._keys)

    def fits_legacy(self, body: bytes, signature: str) -> bool:
        """Whether the RSA key signed this; no when there is none."""
        if self._legacy is None:
            return False
        try:
            self._legacy.verify(base64.b64decode(signature, validate=True), body, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


def _signed(key: VerifyKey, body: bytes, signature: bytes) -> bool:
    try:
        key.verify(body, signature)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def _verify_key(text: str, setting: str) -> VerifyKey:
    key = _load(text, setting)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"sources.gohighlevel.{setting} is not an Ed25519 key.", page="signing-key")
    # libsodium verifies in half of OpenSSL's time, and this is the largest cost of an intake (decision 0004).
    return VerifyKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _load(text: str, setting: str) -> Any:
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
