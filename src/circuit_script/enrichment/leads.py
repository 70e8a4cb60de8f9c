"""A lead as enrichment sees it: an address, a place, a company, a person; and under which keys it is looked up."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuit_script.enrichment.asking import text

NAMES = ("id", "street", "city", "state", "postal_code", "country", "latitude", "longitude", "company", "email", "name")
HERE = frozenset({"", "US", "USA", "UNITED STATES", "UNITED STATES OF AMERICA", "PR", "PUERTO RICO"})
_ZIP = re.compile(r"(\d{5})(?:[- ]?\d{4})?")
_NO_WORD = re.compile(r"[\W_]+")
_MAIL = re.compile(r"[^@\s<>\"(),;:\\]{1,64}@[^@\s<>\"(),;:\\]{1,190}")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the United States, in upper case; ``postal_code`` has five digits or is empty."""

    street: str
    city: str
    state: str
    postal_code: str

    @property
    def key(self) -> bytes:
        return key_of("address", *(folded(each) for each in (self.street, self.city, self.state, self.postal_code)))


@dataclass(frozen=True, slots=True)
class Lead:
    """``where`` is latitude and longitude, as the record has them. ``problem`` says why there is no address."""

    id: str = ""
    address: Address | None = None
    problem: str = "no address"
    where: Point | None = None
    company: str = ""
    email: str = ""
    name: str = ""

    @classmethod
    def of(cls, raw: object) -> Lead:
        """Of fields by NAMES, of which none need be there or make sense. Never raises."""
        if not isinstance(raw, Mapping):
            return cls(problem="no record")
        said = {name: _said(raw.get(name)) for name in NAMES}
        address, problem = _address(said)
        found = _MAIL.fullmatch(said["email"].lower())
        return cls(
            id=said["id"],
            address=address,
            problem=problem,
            where=point(raw.get("latitude"), raw.get("longitude")),
            company=said["company"],
            email=found[0] if found else "",
            name=said["name"],
        )

    @property
    def person(self) -> tuple[str, str] | None:
        """Name and company, by which somebody is known where the e-mail address is not."""
        person = folded(self.name), folded(self.company)
        return person if all(person) else None


def key_of(*parts: str) -> bytes:
    """A hash of what is asked: parts are apart from each other."""
    return hashlib.sha256(b"".join(b"%d:%s" % (len(raw := each.encode()), raw) for each in parts)).digest()


def folded(said: str) -> str:
    """A text by which the same thing is found, whoever has written it."""
    plain = said
    if not said.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", said) if not unicodedata.combining(c))
    return _NO_WORD.sub(" ", plain.casefold()).strip()


def point(latitude: object, longitude: object) -> Point | None:
    """A place on earth; None for what is none. Null Island is what a form says that knows nothing."""
    north, east = _number(latitude), _number(longitude)
    if north is None or east is None or abs(north) > 90 or abs(east) > 180 or (not north and not east):
        return None
    return north, east


def _number(said: object) -> float | None:
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        return None
    try:
        number = float(said)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not isinstance(value, int):
            value = int(value) if value.is_integer() and abs(value) < 1e15 else None
        elif abs(value) >= 10**15:
            value = None
        value = None if value is None else str(value)
    return text(value) or ""


def _address(said: Mapping[str, str]) -> tuple[Address | None, str]:
    if said["country"].upper().replace(".", "") not in HERE:
        return None, "not in the United States"
    zipped = said["postal_code"]
    if zipped.isdigit() and len(zipped) == 4:  # a spreadsheet took it for a number
        zipped = "0" + zipped
    found = _ZIP.fullmatch(zipped)
    postal_code = found[1] if found else ""
    street, city, state = (said[name].upper() for name in ("street", "city", "state"))
    if not street:
        return None, "no address"
    if not postal_code and not (city and state):
        return None, "no whole address: a street needs a ZIP code, or city and state"
    return Address(street, city, state, postal_code), ""
