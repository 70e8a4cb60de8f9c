"""What opens a door: 256 random bits. Only its SHA-256 is stored, and by that it is looked up, so that time tells
nothing of one that is nearly right."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256

_form = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch


def new_secret() -> str:
    """43 characters that may stand in an address or a cookie."""
    return secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Whether it has the form of one."""
    return _form(text) is not None


def digest_of(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def csrf_of(secret: str) -> str:
    """The token that goes with a session: who has it knows nothing of the cookie."""
    made = hmac.digest(secret.encode(), b"circuit-script csrf", "sha256")
    return urlsafe_b64encode(made).rstrip(b"=").decode()
