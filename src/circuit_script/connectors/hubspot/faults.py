"""What HubSpot's errors mean, of whole requests and of single records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from circuit_script.connectors.api import QUOTED, Fault, after_of
from circuit_script.connectors.connector import Delivery, Later, Refused, SlowDown

DAY = 3600.0  # seconds until it is tried again where the day's requests are used up: they come back at midnight there
WINDOW = 10.0
SECOND = 1.0
FAULTS: Sequence[Fault] = (
    Fault(401, "token"),
    Fault(404, "missing"),
    Fault(423, "later"),
    Fault(429, "slow_down"),
    Fault(477, "later"),  # the account is being moved
    Fault(503, "down"),
)
SLOW = frozenset({"RATE_LIMITS", "RATE_LIMIT"})
AGAIN = frozenset({"INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "LOCKED"})
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,79}")


def code_of(response: httpx.Response) -> str | None:
    """``policyName`` of a limit, else ``category``, else ``errorType``."""
    said = response.json()
    for name in ("policyName", "category", "errorType"):
        code = said.get(name) if isinstance(said, Mapping) else None
        if isinstance(code, str) and _CODE.fullmatch(code):
            return code
    return None


def wait_of(response: httpx.Response) -> float | None:
    """Seconds to leave the account alone: as it says, else by the limit that was reached."""
    if (said := after_of(response)) is not None or response.status_code != 429:
        return said
    policy = str(code_of(response))
    if "DAILY" in policy or response.headers.get("x-hubspot-ratelimit-daily-remaining") == "0":
        return DAY
    if policy.startswith("SECONDLY"):
        return SECOND
    interval = response.headers.get("x-hubspot-ratelimit-interval-milliseconds", "")
    return min(60.0, int(interval) / 1000) if interval.isdecimal() and len(interval) < 9 else WINDOW


def verdict(error: Mapping[str, Any]) -> Delivery:
    """What an error of one record means: ``{"category", "message", "context"}``."""
    category = str(error.get("category") or "")
    category = category if _CODE.fullmatch(category) else "ERROR"
    text = "".join(each if each.isprintable() else " " for each in str(error.get("message") or "")[: 4 * QUOTED])
    reason = f"{category}: {' '.join(text.split())[:QUOTED]}"
    if category in SLOW:
        return SlowDown(reason, WINDOW)
    return Later(reason) if category in AGAIN else Refused(reason)


def keys_of(error: Mapping[str, Any], name: str) -> list[str]:
    """Which records an error is about: ``{"context": {"objectWriteTraceId": ["…"]}}``."""
    context = error.get("context")
    values = context.get(name) if isinstance(context, Mapping) else None
    return [str(each) for each in values] if isinstance(values, list) else []
