"""What Resend's errors mean: https://resend.com/docs/api-reference/errors. The answer's JSON has its ``name``."""

from __future__ import annotations

import httpx

from circuit_script.connectors.api import Fault, after_of

DAILY, MONTHLY = 3600.0, 21_600.0  # seconds until it is asked again whether a used up quota is full again
LONGEST = 3600.0

FAULTS = (
    Fault(401, "refused", "restricted_api_key"),  # a key that may send only was asked for what was sent
    Fault(401, "token"),
    Fault(403, "token", "invalid_api_key"),
    Fault(403, "refused"),  # the domain is not verified
    Fault(404, "missing"),
    Fault(409, "later", "concurrent_idempotent_requests"),
    Fault(409, "refused", "invalid_idempotent_request"),  # this id went out already, with other words
    Fault(422, "refused"),
    Fault(429, "slow_down"),
)


def code_of(response: httpx.Response) -> str | None:
    found = response.json()
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def wait_of(response: httpx.Response) -> float | None:
    match code_of(response):
        case "daily_quota_exceeded":
            return DAILY
        case "monthly_quota_exceeded":
            return MONTHLY
    if (said := after_of(response)) is not None:
        return said
    reset = response.headers.get("ratelimit-reset", "")
    return min(float(reset), LONGEST) if reset.isdecimal() and len(reset) < 9 else None
