"""Keys of a developer's own, so that test webhooks can be signed: made once, in `.circuit/dev`, for `dev` alone.

They reach the roles through their environment. `serve` does not know them, so what they sign is refused there.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from circuit_script.config import Settings
from circuit_script.errors import ConfigError, StartError

GOHIGHLEVEL = "gohighlevel.key"  # PEM, PKCS 8
STANDARD = "standard.secret"
ACCOUNT = "test"  # of Standard Webhooks


def dev_folder(settings: Settings) -> Path:
    """Where the keys lie."""
    return settings.state / "dev"


def role_environment(settings: Settings) -> dict[str, str]:
    """What makes a role accept webhooks that are signed with the keys of ``settings``' folder, besides real ones.

    Makes the keys when they are not there. Raises ConfigError for a file that holds no key, StartError where they
    cannot be kept.
    """
    folder = dev_folder(settings)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _kept(folder / GOHIGHLEVEL, _new_key)
        secret = _kept(folder / STANDARD, _new_secret).decode().strip()
    except OSError as error:
        raise StartError(
            f"{error.strerror}: {error.filename}.",
            cure="Let this user write to the app's folder, run as its owner, or free some space.",
            page="folder-not-writable",
        ) from None
    standard = settings.sources.standard.secrets
    merged = {**standard, ACCOUNT: (*standard.get(ACCOUNT, ()), secret)}
    return {
        "CIRCUIT_SOURCES__GOHIGHLEVEL__TEST_PUBLIC_KEY": _public_half(key, folder / GOHIGHLEVEL),
        "CIRCUIT_SOURCES__STANDARD__SECRETS": json.dumps(merged),
    }


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; made, for its owner's eyes, when it is not there."""
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(make())
        fresh.rename(path)
    return path.read_bytes()


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _new_secret() -> bytes:
    return b"whsec_" + base64.b64encode(secrets.token_bytes(32)) + b"\n"


def _public_half(pem: bytes, path: Path) -> str:
    try:
        key = load_pem_private_key(pem, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError
    except (ValueError, TypeError):
        raise ConfigError(
            f"{path} is not an Ed25519 key.", cure="Delete the file; the next start makes another.", page="signing-key"
        ) from None
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
