"""Google's Places (v1): what kind of business a company is. A field mask says what is answered, and so what it costs.

The id of a place may be kept for ever, everything else for thirty days. (Google's Places API policies)
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from circuit_script.enrichment.asking import Call, NotAnswered, Reply, refused, text, unreadable
from circuit_script.enrichment.leads import Lead, folded, key_of, point
from circuit_script.settings_enrichment import MapsSettings

SHOWN = "Google Places"
FIELDS = ("id", "displayName", "primaryType", "businessStatus", "location")
CEILING = 256 * 1024
_ID = re.compile(r"[A-Za-z0-9_-]{5,255}")
_TYPE = re.compile(r"[a-z][a-z0-9_]{1,60}")


def words_of(lead: Lead) -> str:
    """What is searched for: the company, and where it is."""
    at = lead.address
    parts = (lead.company, at.street, at.city, f"{at.state} {at.postal_code}".strip()) if at else (lead.company,)
    return ", ".join(part for part in parts if part)


def key_of_place(lead: Lead) -> bytes:
    return key_of("place", folded(words_of(lead)))


def search(lead: Lead, settings: MapsSettings, key: str) -> Call:
    return _call(
        "POST",
        f"{settings.url}/v1/places:searchText",
        ",".join(f"places.{name}" for name in FIELDS),
        settings,
        key,
        msgspec.json.encode({"textQuery": words_of(lead), "pageSize": 1, "languageCode": "en"}),
    )


def look_again(place_id: str, settings: MapsSettings, key: str) -> Call:
    """The place whose id is known."""
    return _call("GET", f"{settings.url}/v1/places/{place_id}", ",".join(FIELDS), settings, key, None)


def found(reply: Reply) -> dict[str, Any] | None:
    """The first place of a search; None when there is none. Raises NotAnswered."""
    said = _read(reply)
    places = said.get("places", [])
    if not isinstance(places, list):
        raise unreadable(SHOWN)
    return place_of(places[0]) if places else None


def found_again(reply: Reply) -> dict[str, Any] | None:
    """The place; None when its id is of none any more. Raises NotAnswered."""
    return None if reply.status == 404 else place_of(_read(reply))


def place_of(said: object) -> dict[str, Any]:
    """Raises NotAnswered for what is no place."""
    if not isinstance(said, dict) or not isinstance(said.get("id"), str) or not _ID.fullmatch(said["id"]):
        raise unreadable(SHOWN)
    name, where, kind = said.get("displayName"), said.get("location"), said.get("primaryType")
    at = point(where.get("latitude"), where.get("longitude")) if isinstance(where, dict) else None
    return {
        "place_id": said["id"],
        "name": text(name.get("text")) if isinstance(name, dict) else None,
        "category": kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else None,
        "open": None if said.get("businessStatus") is None else said["businessStatus"] == "OPERATIONAL",
        "latitude": at[0] if at else None,
        "longitude": at[1] if at else None,
    }


def _read(reply: Reply) -> dict[str, Any]:
    if reply.status in (401, 403):
        raise NotAnswered(f"unavailable: {SHOWN} does not accept maps.key (HTTP {reply.status})")
    if reply.status != 200:
        raise refused(SHOWN, reply)
    try:
        return msgspec.json.decode(reply.body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise unreadable(SHOWN) from None


def _call(method: str, url: str, mask: str, settings: MapsSettings, key: str, body: bytes | None) -> Call:
    headers = {"x-goog-api-key": key, "x-goog-fieldmask": mask}
    if body is not None:
        headers["content-type"] = "application/json"
    return Call(method, url, SHOWN, settings.timeout, headers=headers, body=body, secrets=(key,), ceiling=CEILING)
