"""Errors at the HTTP door: problem+json (RFC 9457), never a stack trace."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "10"  # seconds


def render(status: int, detail: str, reason: str | None = None) -> bytes:
    """The body. ``reason`` is the machine's word for the case."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return msgspec.json.encode(problem if reason is None else {**problem, "reason": reason})


def headers_of(status: int) -> dict[str, str]:
    """Headers that a problem of this status carries besides its length."""
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    if status in (429, 503):
        headers["retry-after"] = RETRY_AFTER
    return headers
