"""Seals texts for the database with AES-256-GCM (NIST SP 800-38D), each bound to the row that it stands in.

What is sealed is

    byte  0       1, the form's version
    bytes 1-8     the id of the key: the first bytes of its SHA-256
    bytes 9-20    the nonce, random (a key may seal 2**32 texts before chance makes a repeat worth a thought)
    bytes 21-     the text, encrypted, and 16 bytes of tag

and the first nine bytes are authenticated with ``of``, the name of the place: a value that somebody copies into another
row does not open there. Of several keys the first seals and every one opens, so that a key can be changed while texts
of the one before are still there.
"""

from __future__ import annotations

import binascii
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from circuit_script.errors import SecretsUnavailable

BYTES = 32  # of a key
_VERSION = b"\x01"
_ID = 8
_NONCE = 12
_TAG = 16
_HEADER = len(_VERSION) + _ID


class SealBroken(SecretsUnavailable):
    """Something sealed does not open."""


class Cipher:
    """Seals with the first of ``keys`` and opens with any of them; each has 32 bytes."""

    __slots__ = ("_first", "_keys")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a cipher has a key at least")
        if any(len(key) != BYTES for key in keys):
            raise ValueError(f"a key has {BYTES} bytes")
        self._keys = {key_id(key): AESGCM(key) for key in reversed(keys)}
        self._first = key_id(keys[0])

    def __repr__(self) -> str:
        return f"Cipher(keys {', '.join(sorted(each.hex() for each in self._keys))})"

    @property
    def key(self) -> bytes:
        """The id of the key that seals."""
        return self._first

    def seal(self, text: str, of: str) -> bytes:
        """``text``, closed; it opens as ``of`` only, like "acme/gohighlevel/refresh"."""
        header = _VERSION + self._first
        nonce = os.urandom(_NONCE)
        return header + nonce + self._keys[self._first].encrypt(nonce, text.encode(), header + of.encode())

    def open(self, sealed: bytes, of: str) -> str:
        """The text again. Raises SealBroken: its key is not among ours, it was sealed as something else, or changed."""
        sealed = bytes(sealed)
        header, nonce, closed = sealed[:_HEADER], sealed[_HEADER : _HEADER + _NONCE], sealed[_HEADER + _NONCE :]
        if len(closed) < _TAG or header[:1] != _VERSION:
            raise SealBroken(f"What stands in {of} was not sealed by this version.", cure="Put the secret in again.")
        key = self._keys.get(header[1:])
        if key is None:
            raise SealBroken(
                f"{of} was sealed with the key {header[1:].hex()}, which is not among those given.",
                cure="Give that key too, after the new one (CIRCUIT_SECRETS_KEY=new,old).",
            )
        try:
            return key.decrypt(nonce, closed, header + of.encode()).decode()
        except InvalidTag:
            raise SealBroken(
                f"What stands in {of} was changed, or was sealed for another place.", cure="Put the secret in again."
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether it is sealed with the first key."""
        return bytes(sealed[:_HEADER]) == _VERSION + self._first


def key_id(key: bytes) -> bytes:
    """What says which key it is, and nothing of what it is."""
    return sha256(b"circuit-script secrets key\0" + key).digest()[:_ID]


def new_key() -> str:
    """A key as it is written in the environment or a file: 32 random bytes in base64."""
    return b64encode(secrets.token_bytes(BYTES)).decode()


def keys_of(text: str) -> list[bytes]:
    """The keys that a variable or a file holds, separated by commas or lines; lines of ``#`` say something else.

    Raises ValueError, which shows none of it.
    """
    return [_key_of(each, number) for number, each in enumerate(written_keys(text), 1)]


def written_keys(text: str) -> list[str]:
    """The same, as they are written there."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [each.strip() for line in lines for each in line.split(",") if each.strip()]


def _key_of(written: str, number: int) -> bytes:
    try:
        key = b64decode(written.translate(_URL_SAFE) + "=" * (-len(written) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"key {number} is not base64") from None
    if len(key) != BYTES:
        raise ValueError(f"key {number} has {len(key)} bytes and must have {BYTES}")
    return key


_URL_SAFE = str.maketrans("-_", "+/")
