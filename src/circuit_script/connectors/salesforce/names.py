"""Names and values between us and Salesforce: which sObject and field ours are, and how values look on either side.

Moments are text here, in UTC, as ``2026-01-31T09:30:00.000Z``; days are ``2026-01-31``; several choices are a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from circuit_script.connectors.connector import Fields
from circuit_script.connectors.salesforce.settings import FIELDS, OBJECTS, SalesforceSettings
from circuit_script.errors import RequestRefused

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}", re.ASCII)
ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", re.ASCII)
DAYS = frozenset({"Birthdate", "CloseDate", "ActivityDate"})  # fields that take a day and no time
_CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def is_id(text: object) -> bool:
    """Whether it has the form of an id of Salesforce's: 15 characters, or 18 of which the last three fit the others."""
    if not isinstance(text, str) or ID.fullmatch(text) is None:
        return False
    return len(text) == 15 or long_id(text[:15]) == text


def long_id(short: str) -> str:
    """The 18 characters of an id: each of the last three tells which of five characters are capitals."""
    ends = (sum(1 << n for n, each in enumerate(short[at : at + 5]) if "A" <= each <= "Z") for at in (0, 5, 10))
    return short + "".join(_CHECK[each] for each in ends)


class Names:
    """The two-way table of one connector."""

    def __init__(self, settings: SalesforceSettings) -> None:
        self._objects = {**OBJECTS, **settings.objects}
        self._external = dict(settings.external_ids)
        self._theirs: dict[str, dict[str, str]] = {}
        self._ours: dict[str, dict[str, str]] = {}
        for each in {*self._objects, *settings.fields}:
            table = {**FIELDS.get(self._objects.get(each, each), {}), **settings.fields.get(each, {}), "id": "Id"}
            for name in (self._objects.get(each, each), *table.values()):
                if NAME.fullmatch(name) is None:
                    raise ValueError(f"{name!r} is no name of an object or a field of Salesforce.")
            self._theirs[each] = table
            self._ours[each] = {theirs: ours for ours, theirs in table.items()}
        for name in self._external.values():
            if NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no name of a field of Salesforce.")

    @property
    def objects(self) -> frozenset[str]:
        return frozenset(self._objects)

    def sobject(self, object_: str) -> str:
        """The sObject of an object of ours. Raises RequestRefused for what cannot be one."""
        found = self._objects.get(object_, object_)
        if NAME.fullmatch(found) is None:
            raise RequestRefused(f"{object_[:80]!r} is no object of Salesforce.")
        return found

    def theirs(self, object_: str, field: str) -> str:
        """Salesforce's name of a field of ours. Raises RequestRefused for what cannot be one."""
        found = self._theirs.get(object_, {"id": "Id"}).get(field, field)
        if NAME.fullmatch(found) is None:
            raise RequestRefused(f"{object_} has no field {field[:80]!r} in salesforce.")
        return found

    def ours(self, object_: str, field: str) -> str:
        return self._ours.get(object_, {"Id": "id"}).get(field, field)

    def external(self, object_: str) -> str | None:
        """The field of an object that holds ids of ours, if one does."""
        return self._external.get(object_)

    def mapped(self, object_: str) -> Mapping[str, str]:
        return self._theirs.get(object_, {"id": "Id"})

    def record(self, object_: str, fields: Mapping[str, Any]) -> Fields:
        """Fields of ours as Salesforce takes them, its id left out. Raises RequestRefused."""
        found = {}
        for name, value in fields.items():
            theirs = self.theirs(object_, name)
            if theirs != "Id":
                found[theirs] = outward(theirs, value)
        return found

    def row(self, object_: str, record: Mapping[str, Any], types: Mapping[str, str]) -> Fields:
        """A record of Salesforce's as a row of ours; ``types`` are those of its fields."""
        return {
            self.ours(object_, name): inward(types.get(name, ""), value)
            for name, value in record.items()
            if name != "attributes"
        }


def outward(field: str, value: Any) -> Any:
    """One value as Salesforce takes it."""
    if isinstance(value, list | tuple):
        return ";".join(str(each) for each in value)
    if isinstance(value, datetime):
        value = stamp(value)
    elif isinstance(value, date):
        value = value.isoformat()
    if field in DAYS and isinstance(value, str) and (moment := moment_of(value)) is not None:
        return moment.date().isoformat()
    return value


def inward(kind: str, value: Any) -> Any:
    """One value as our rows have it."""
    if kind == "datetime" and isinstance(value, str):
        moment = moment_of(value)
        return value if moment is None else stamp(moment)
    if kind == "multipicklist" and isinstance(value, str):
        return [each for each in value.split(";") if each]
    return value


def moment_of(text: str) -> datetime | None:
    """The moment that a text of ISO 8601 says; UTC unless it says otherwise; None for what is none, or a day only."""
    if not 16 <= len(text) <= 40 or text[10] not in "Tt ":
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None


def stamp(moment: datetime) -> str:
    """A moment as text, in UTC and with milliseconds."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
