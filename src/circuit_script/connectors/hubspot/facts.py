"""What an account says of an object's properties, for people who write against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.connectors.hubspot.names import IDENTITY, PROPERTY, Names
from circuit_script.connectors.hubspot.properties import MAX_PROPERTIES
from circuit_script.schemas.facts import FieldFacts, Kind

TYPES: Mapping[str, Kind] = {
    "string": "text", "phone_number": "phone", "number": "number", "bool": "boolean", "date": "date",
    "datetime": "datetime", "enumeration": "choice",
}  # fmt: skip


def facts_of(said: Any, names: Names, object_: str) -> list[FieldFacts]:
    """The properties of an answer; what is not as it should be is left out, and so is what rows do
    not have, or HubSpot hides."""
    listed = said.get("results") if isinstance(said, Mapping) else None
    found = (_facts(each, names, object_) for each in (listed if isinstance(listed, list) else [])[:MAX_PROPERTIES])
    return [each for each in found if each is not None and each.name != "id"]


def _facts(said: Any, names: Names, object_: str) -> FieldFacts | None:
    if not isinstance(said, Mapping) or not isinstance(name := said.get("name"), str) or not PROPERTY.fullmatch(name):
        return None
    own = name.startswith("hs_") and names.ours(object_, name) == name  # HubSpot keeps it for itself
    if own or name == IDENTITY or said.get("hidden") is True or said.get("archived") is True:
        return None
    type_ = str(said.get("type"))
    more = said.get("modificationMetadata")
    kept = isinstance(more, Mapping) and more.get("readOnlyValue") is True
    return FieldFacts(
        name=names.ours(object_, name),
        label=str(said.get("label") or ""),
        kind=_kind(type_, said),
        also=(name,),
        choices=_choices(said),
        writable=not kept and said.get("calculated") is not True,
        spelled=True,  # a webhook has texts only
        said=type_,
    )


def _kind(type_: str, said: Mapping[str, Any]) -> Kind:
    if type_ == "enumeration" and said.get("fieldType") == "checkbox":
        return "choices"
    if type_ == "number" and said.get("showCurrencySymbol") is True:
        return "money"
    return TYPES.get(type_, "unknown")


def _choices(said: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of an enumeration, hidden ones, too: old records have them. None where they stand elsewhere."""
    listed = said.get("options")
    if said.get("externalOptions") is True or not isinstance(listed, list):
        return ()
    values = (each.get("value") for each in listed if isinstance(each, Mapping))
    return tuple(each for each in values if isinstance(each, str))
