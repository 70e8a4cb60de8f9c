"""Names and values between us and HubSpot.

Every property travels as text there: numbers, booleans (``true``), moments (ISO 8601, or milliseconds), several choices
(``a;b``). Nothing is the empty text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from circuit_script.connectors.connector import Fields
from circuit_script.connectors.hubspot.settings import CONTACT, FIELDS, OBJECTS, WITH_CONTACT, HubSpotSettings
from circuit_script.errors import RequestRefused

OBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
PROPERTY = re.compile(r"[a-z0-9_]{1,100}", re.ASCII)
ID = re.compile(r"[0-9]{1,20}", re.ASCII)
IDENTITY = "hs_object_id"
_MILLISECONDS = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


class Names:
    """The two-way table of one connector."""

    def __init__(self, settings: HubSpotSettings) -> None:
        self._objects = {**OBJECTS, **settings.objects}
        self._external = dict(settings.external_ids)
        self._theirs: dict[str, dict[str, str]] = {}
        for each in {*self._objects, *settings.fields}:
            theirs = self._objects.get(each, each)
            self._theirs[each] = {**FIELDS.get(theirs, {}), **settings.fields.get(each, {}), "id": IDENTITY}
            if OBJECT.fullmatch(theirs) is None:
                raise ValueError(f"{theirs!r} is no object of HubSpot.")
        for name in (*self._external.values(), *(name for each in self._theirs.values() for name in each.values())):
            if PROPERTY.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no property of HubSpot.")
        self._ours = {each: {theirs: ours for ours, theirs in table.items()} for each, table in self._theirs.items()}

    @property
    def objects(self) -> frozenset[str]:
        return frozenset(self._objects)

    def object(self, object_: str) -> str:
        """HubSpot's name of an object of ours. Raises RequestRefused for what cannot be one."""
        found = self._objects.get(object_, object_)
        if OBJECT.fullmatch(found) is None:
            raise RequestRefused(f"{object_[:80]!r} is no object of HubSpot.")
        return found

    def theirs(self, object_: str, field: str) -> str:
        """The property of a field of ours. Raises RequestRefused for what cannot be one."""
        found = self._theirs.get(object_, {"id": IDENTITY}).get(field, field)
        if PROPERTY.fullmatch(found) is None:
            raise RequestRefused(
                f"{object_} has no property {field[:80]!r} in HubSpot.",
                cure=f"Say what it is called there: [connectors.hubspot.fields.{object_}] {field[:80]} = …",
            )
        return found

    def ours(self, object_: str, name: str) -> str:
        return self._ours.get(object_, {}).get(name, name)

    def external(self, object_: str) -> str | None:
        """The property that holds ids of ours, if one does."""
        return self._external.get(object_)

    def mapped(self, object_: str) -> Mapping[str, str]:
        return self._theirs.get(object_, {"id": IDENTITY})

    def has_contact(self, object_: str) -> bool:
        """Whether a contact belongs to such a record."""
        return self.object(object_) in WITH_CONTACT

    def properties(self, object_: str, fields: Mapping[str, Any]) -> dict[str, str]:
        """Fields of ours as HubSpot takes them, without its id and its contact. Raises RequestRefused."""
        found = {}
        for name, value in fields.items():
            if name == "id" or (name == CONTACT and self.has_contact(object_)):
                continue
            found[self.theirs(object_, name)] = outward(value)
        return found

    def row(self, object_: str, record: Mapping[str, Any], kinds: Mapping[str, str]) -> Fields:
        """A record of HubSpot's as a row of ours; ``kinds`` are those of its properties."""
        said = record.get("properties")
        row: Fields = {
            self.ours(object_, name): inward(kinds.get(name, "string"), value)
            for name, value in (said.items() if isinstance(said, Mapping) else ())
            if isinstance(name, str) and name in kinds and name != IDENTITY
        }
        row["id"] = str(record.get("id"))
        return row


def outward(value: Any) -> str:
    """One value as HubSpot takes it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return ";".join(str(each) for each in value)
        case datetime():
            return stamp(value)
        case date():
            return value.isoformat()
        case _:
            return str(value)


def inward(kind: str, value: Any) -> Any:
    """One value as our rows have it."""
    if value is None or value == "" or not isinstance(value, str):
        return None if value == "" else value
    match kind:
        case "number":
            return _number(value)
        case "bool":
            return {"true": True, "false": False}.get(value.lower(), value)
        case "datetime":
            return _moment(value)
        case "date":
            return _moment(value)[:10] if _MILLISECONDS.fullmatch(value) else value[:10]
        case "several":
            return [each for each in value.split(";") if each]
    return value


def stamp(moment: datetime) -> str:
    """A moment as text, in UTC and with milliseconds."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> Any:
    try:
        found = float(text)
    except ValueError:
        return text
    if not math.isfinite(found):
        return text
    whole = text.lstrip("-").isdecimal() and len(text) < 20
    return int(text) if whole else found


def _moment(text: str) -> str:
    try:
        if _MILLISECONDS.fullmatch(text):
            return stamp(_EPOCH + timedelta(milliseconds=int(text)))
        return stamp(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return text
