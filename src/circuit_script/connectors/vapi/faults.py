"""What Vapi's errors mean. Its answers are ``{"statusCode": …, "message": …, "error": …}``, without codes: what is to
be told apart is so by its words."""

from __future__ import annotations

import httpx

from circuit_script.connectors.api import Fault, after_of, said

BUSY = "busy"
UNPAID = "unpaid"
SOON = 20.0  # seconds: a call lasts longer
UNPAID_WAIT = 1800.0

FAULTS = (
    Fault((400, 429), "slow_down", BUSY),
    Fault((400, 403), "slow_down", UNPAID),
    Fault(400, "refused"),
    Fault(401, "token"),
    Fault(402, "slow_down"),
    Fault(403, "refused"),
    Fault(404, "missing"),
    Fault(422, "refused"),
    Fault(429, "slow_down"),
)


def code_of(response: httpx.Response) -> str | None:
    words = said(response).lower()
    if "concurren" in words:
        return BUSY
    if "wallet" in words or "credit" in words or response.status_code == 402:
        return UNPAID
    return None


def wait_of(response: httpx.Response) -> float | None:
    if (after := after_of(response)) is not None:
        return after
    return {BUSY: SOON, UNPAID: UNPAID_WAIT}.get(code_of(response) or "")
