"""What PostgreSQL can store, of what handlers and vendors say."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder(enc_hook=str).encode


def plain(text: str | None) -> str | None:
    """Text that PostgreSQL takes."""
    return text if text is None else text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def as_json(value: Any) -> bytes:
    """JSON that PostgreSQL's jsonb takes: it has no NUL, so NUL becomes U+FFFD."""
    encoded = _encode(value)
    return encoded if b"\\u0000" not in encoded else _encode(_without_nul(value))


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case dict():
            return {_without_nul(str(name)): _without_nul(each) for name, each in value.items()}
        case list() | tuple():
            return [_without_nul(each) for each in value]
        case _:
            return value
