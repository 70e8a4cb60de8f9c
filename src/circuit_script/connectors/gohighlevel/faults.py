"""What GoHighLevel's errors mean, and what its headers say of its limit.

Its errors have ``statusCode``, ``message`` (text, or a list of texts) and sometimes ``error``; there are no codes.
Which record is not there, and who is there already, is told by 400 and a sentence alone, so that is what is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from circuit_script.connectors.api import Fault, after_of
from circuit_script.connectors.pace import Told

BASE_URL = "https://services.leadconnectorhq.com"
CALLS = 100  # in SECONDS, for each location
SECONDS = 10.0
OUT_OF_DAY = 600.0  # seconds until it is tried again when the day's 200,000 are used up

FAULTS: Sequence[Fault] = (
    Fault(401, "down", "scope"),  # the token is good, and not for this: a person has to connect again
    Fault(401, "token"),
    Fault(400, "missing", "not_found"),
    Fault(404, "missing"),
    Fault(422, "missing", "not_found"),
    Fault(408, "unknown"),
    Fault(429, "slow_down"),
)

_SENTENCES = (
    ("not authorized for this scope", "scope"),
    ("does not allow duplicated contacts", "duplicate"),
    ("not found", "not_found"),
    ("does not exist", "not_found"),
)


def code_of(response: httpx.Response) -> str | None:
    """A code of our own for what the vendor says in words."""
    said = response.json()
    message = said.get("message") if isinstance(said, dict) else None
    text = str(message)[:1000].lower()
    return next((code for sentence, code in _SENTENCES if sentence in text), None)


def wait_of(response: httpx.Response) -> float | None:
    """Seconds after a 429: a whole window, unless the vendor says otherwise."""
    told = told_of(response)
    return after_of(response) or told.pause or told.seconds


def told_of(response: httpx.Response) -> Told:
    """What the headers ``X-RateLimit-…`` say."""
    headers = response.headers
    interval = _number(headers.get("x-ratelimit-interval-milliseconds"))
    seconds = interval / 1000 if interval else None
    left_today = _number(headers.get("x-ratelimit-daily-remaining"))
    pause = OUT_OF_DAY if left_today == 0 else (seconds or SECONDS) if response.status_code == 429 else None
    return Told(
        calls=_number(headers.get("x-ratelimit-max")),
        seconds=seconds,
        left=_number(headers.get("x-ratelimit-remaining")),
        pause=pause,
    )


def _number(said: str | None) -> int | None:
    return int(said) if said and said.isascii() and said.isdecimal() and len(said) < 10 else None
