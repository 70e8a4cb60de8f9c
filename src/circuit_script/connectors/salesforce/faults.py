"""What Salesforce's errors mean, of whole requests and of single records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from circuit_script.connectors.api import QUOTED, Fault, after_of
from circuit_script.connectors.connector import Delivered, Delivery, Effect, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.salesforce.names import Names, is_id, long_id

ANY = (400, 599)
LIMITED = 60.0  # seconds, where too much is on its way at once
SPENT = 900.0  # seconds: the day's requests come back little by little

FAULTS: Sequence[Fault] = (
    Fault(401, "token"),
    Fault(ANY, "token", "INVALID_SESSION_ID"),
    Fault(ANY, "slow_down", "REQUEST_LIMIT_EXCEEDED"),
    Fault(ANY, "later", "UNABLE_TO_LOCK_ROW"),
    Fault(ANY, "later", "QUERY_TIMEOUT"),
    Fault(503, "down"),
    Fault(ANY, "down", "SERVER_UNAVAILABLE"),
    Fault(404, "missing"),
)
LATER = frozenset(
    {"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "PROCESSING_HALTED", "ALL_OR_NONE_OPERATION_ROLLED_BACK"}
)
GONE = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY"})
_TWIN = re.compile(r"record with id: ([A-Za-z0-9]{15,18})")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,79}")


def code_of(response: httpx.Response) -> str | None:
    """``errorCode`` of the first error."""
    said = response.json()
    first = said[0] if isinstance(said, list) and said else said
    code = first.get("errorCode") if isinstance(first, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def wait_of(response: httpx.Response) -> float | None:
    """Seconds to leave it alone, which Salesforce says rarely."""
    if (said := after_of(response)) is not None or code_of(response) != "REQUEST_LIMIT_EXCEEDED":
        return said
    return SPENT if b"TotalRequests" in response.content else LIMITED


def result_of(said: Any, effect: Effect, names: Names) -> Delivery:
    """What Salesforce says of one record: ``{"id", "success", "errors": [{"statusCode", "message", "fields"}]}``."""
    if not isinstance(said, Mapping) or not isinstance(said.get("success"), bool):
        return Unknown("Salesforce says nothing that is understood of it")
    if said["success"]:
        made: Any = said.get("id")
        return Delivered(long_id(made[:15]) if is_id(made) else None)
    several = _listed(said.get("errors"))
    first = several[0] if several and isinstance(several[0], Mapping) else {}
    return verdict(
        str(first.get("statusCode") or "UNKNOWN_EXCEPTION"),
        str(first.get("message") or ""),
        [each for each in _listed(first.get("fields")) if isinstance(each, str)],
        effect,
        names,
    )


def _listed(said: Any) -> list[Any]:
    return said if isinstance(said, list) else []


def verdict(code: str, message: str, fields: Sequence[str], effect: Effect, names: Names) -> Delivery:
    """What an error of one record means for its effect."""
    code = code if _CODE.fullmatch(code) else "UNKNOWN_EXCEPTION"
    ours = ", ".join(names.ours(effect.target, each) for each in fields[:10])
    text = f"{message} ({ours})" if ours else message
    text = "".join(each if each.isprintable() else " " for each in text[: 4 * QUOTED])
    reason = f"{code}: {' '.join(text.split())[:QUOTED]}"
    if code == "REQUEST_LIMIT_EXCEEDED":
        return SlowDown(reason, LIMITED)
    if code in LATER:
        return Later(reason, down=code == "SERVER_UNAVAILABLE")
    if effect.operation == "delete" and (code == "ENTITY_IS_DELETED" or (code in GONE and effect.attempts)):
        return Delivered()
    external = names.external(effect.target)
    if code == "DUPLICATE_VALUE" and effect.attempts and external in fields and (twin := _TWIN.search(message)):
        return Delivered(long_id(twin[1][:15]))  # an earlier attempt has made it
    return Refused(reason)
