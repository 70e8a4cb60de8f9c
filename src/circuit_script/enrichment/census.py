"""The batch geocoder of the Census Bureau: a CSV file of addresses in, one of places and districts out.

Each row of the answer has the number of ours, our address, Match, No_Match or Tie, Exact or Non_Exact, the address that
was matched, "longitude,latitude", a line of the map and its side, and the codes of state, county, tract and block. Rows
come in any order; those without a match end early. (geocoding.geo.census.gov, Geocoding Services API)
"""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from circuit_script.enrichment.asking import Call, Reply, refused, unreadable
from circuit_script.enrichment.leads import Address, point
from circuit_script.settings_enrichment import CensusSettings

ROWS = 10_000  # of one file, as the geocoder allows
SHOWN = "the Census geocoder"
NO_MATCH = "no match: the geocoder does not know the address"
TIE = "several matches: the address is ambiguous"

Place = Mapping[str, Any] | Literal["no_match", "tie"]


def geocode(addresses: Sequence[Address], settings: CensusSettings) -> Call:
    """One request for all of them; the rows are numbered from 1."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\r\n")
    for number, each in enumerate(addresses, 1):
        rows.writerow((number, each.street, each.city, each.state, each.postal_code))
    boundary = secrets.token_hex(16)
    fields = (("benchmark", settings.benchmark), ("vintage", settings.vintage))
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="addressFile"; filename="addresses.csv"\r\n'
        f"Content-Type: text/csv\r\n\r\n{file.getvalue()}\r\n--{boundary}--\r\n"
    )
    return Call(
        "POST",
        f"{settings.url}/geographies/addressbatch",
        SHOWN,
        settings.timeout,
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
        body="".join(parts).encode(),
    )


def places(reply: Reply, asked: int) -> dict[int, Place]:
    """By the numbers of the rows, what the geocoder found. Rows that make no sense are left out, and so are all that
    were not asked for; the first of several with one number counts. Raises NotAnswered when nothing can be read."""
    if reply.status != 200:
        raise refused(SHOWN, reply)
    found: dict[int, Place] = {}
    rows = csv.reader(io.StringIO(reply.body.decode("utf-8", "replace").replace("\0", "")))
    try:
        for row in rows:
            number = _row_number(row, asked)
            if number is not None and number not in found and (place := _place(row)) is not None:
                found[number] = place
    except csv.Error:  # a field without end: what came before counts
        pass
    if not found:
        raise unreadable(SHOWN)
    return found


def _row_number(row: Sequence[str], asked: int) -> int | None:
    said = row[0].strip() if len(row) >= 3 else ""
    if not (said.isascii() and said.isdigit() and len(said) <= 5):
        return None
    return int(said) if 1 <= int(said) <= asked else None


def _place(row: Sequence[str]) -> Place | None:
    match row[2].strip().lower():
        case "no_match":
            return "no_match"
        case "tie":
            return "tie"
        case "match" if len(row) >= 6:
            return _matched(row)
        case _:
            return None


def _matched(row: Sequence[str]) -> Place | None:
    longitude, comma, latitude = row[5].partition(",")
    where = point(latitude.strip(), longitude.strip()) if comma else None
    if where is None:
        return None
    state, county, tract = (
        _code(row[place] if len(row) > place else "", length) for place, length in ((8, 2), (9, 3), (10, 6))
    )
    whole = state and county and tract
    return {
        "latitude": where[0],
        "longitude": where[1],
        "state": state or None,
        "county": f"{state}{county}" if state and county else None,
        "tract": f"{state}{county}{tract}" if whole else None,
        "match": "exact" if row[3].strip().lower() == "exact" else "approximate",
    }


def _code(said: str, length: int) -> str:
    code = said.strip()
    return code if len(code) == length and code.isascii() and code.isdigit() else ""
