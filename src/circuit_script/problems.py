"""Errors as HTTP tells them: problem+json (RFC 9457), never a stack trace."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "10"  # seconds
PREFIX = "/problems/"  # where the gateway serves the page of an error

# In documents of the API.
SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "The page that says more."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "The case, for programs."},
        "execution": {"type": "string", "format": "uuid", "description": "What to search the logs for."},
    },
}
KEY: dict[str, Any] = {"type": "http", "scheme": "bearer", "description": "Made by circuit-script keys create."}


def render(
    status: int, detail: str, reason: str | None = None, *, page: str | None = None, execution: str | None = None
) -> bytes:
    """The body. ``reason`` is the machine's word for the case, ``page`` names the page that says more, ``execution``
    is what to search the logs for."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    kind = "about:blank" if page is None else PREFIX + page
    problem = {"type": kind, "title": title, "status": status, "detail": detail}
    if reason is not None:
        problem["reason"] = reason
    if execution is not None:
        problem["execution"] = execution
    return msgspec.json.encode(problem)


def headers_of(status: int) -> dict[str, str]:
    """Headers that a problem of this status carries besides its length."""
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    if status in (429, 503):
        headers["retry-after"] = RETRY_AFTER
    return headers
