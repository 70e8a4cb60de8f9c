"""CircuitDB.batch_enrich: of each record only what says where it is, and who it is, leaves for the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuit_script.execution.authoring.calls import allowed
from circuit_script.execution.session import current_record, session

# By what enrichment calls it, the fields in which records have it; the first that says something counts.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "street": ("address1", "street", "address", "mailingStreet", "billingStreet"),
    "city": ("city", "mailingCity", "billingCity"),
    "state": ("state", "mailingState", "billingState"),
    "postal_code": ("postalCode", "postal_code", "zip", "zipCode", "mailingPostalCode", "billingPostalCode"),
    "country": ("country",),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lng", "lon"),
    "company": ("companyName", "company", "businessName"),
    "email": ("email",),
    "name": ("name", "fullName", "contactName"),
}
LONGEST = 500  # characters
LARGEST = 2**53  # a number that is none of a ZIP code or a coordinate may not even be possible to send


async def enrich(
    records: Iterable[Mapping[str, Any]], sources: Sequence[str], fields: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Raises ValueError for a field that enrichment does not know."""
    named = dict(fields or {})
    if unknown := sorted(named.keys() - FIELDS.keys()):
        raise ValueError(f"batch_enrich knows no field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    names = {what: (named[what],) if what in named else known for what, known in FIELDS.items()}
    if isinstance(records, Mapping):
        records = [records]
    each = list.__iter__(records) if isinstance(records, list) else iter(records)  # works on no record of the batch
    asked = {
        "leads": [_lead(record, names) for record in each],
        "sources": [sources] if isinstance(sources, str) else list(sources),
        "record": current_record.get(),
    }
    rows: list[dict[str, Any]] = allowed(await session().request("enrich", asked, dict[str, Any]))["rows"]
    return rows


def _lead(record: object, names: Mapping[str, tuple[str, ...]]) -> dict[str, Any] | None:
    if not isinstance(record, Mapping):
        return None
    found = {what: value for what, known in names.items() if (value := _said(record, known)) is not None}
    if "name" not in found and (
        parts := [value for name in ("firstName", "lastName") if (value := _said(record, (name,)))]
    ):
        found["name"] = " ".join(map(str, parts))
    return found


def _said(record: Mapping[str, Any], names: tuple[str, ...]) -> str | int | float | None:
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value[:LONGEST].encode("utf-8", "replace").decode()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
            return value
    return None
